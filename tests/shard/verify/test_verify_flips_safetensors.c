/* SPDX-License-Identifier: Apache-2.0 */
/* Every single bit of safetensors that PyTorch wrote, as test_verify_flips.c
 * does it. */
#include "support/test.h"
#include "support/flips.h"

#include "shard/base/bytes.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- safetensors --------------------------------------------------------- */

/* Elements have no checksum; of the header, names and types of the same size
 * stand nowhere else. */
static void flip_safetensors(const char *fixture, const char *file)
{
	unsigned elements = 0, bit;
	struct totals totals = { 0 };
	struct copy copy;
	size_t data;

	copy_make(&copy, fixture, file);
	data = 8 + (size_t)bytes_u64le(copy.bytes);
	for (bit = 0; bit < 8 * copy.size; bit++) {
		enum outcome outcome = flip_bit(&copy, bit);

		if (bit / 8 >= data) {
			assert_int_equal(outcome, SAME);
			elements++;
			continue;
		}
		totals.outcomes[outcome]++;
		if (outcome == CHANGED || outcome == LOST)
			fail_msg("%s: bit %u of byte %u of %s: another shape or place, and no word of it",
				 fixture, bit % 8, bit / 8, file);
	}
	printf("%s/%s: header: %u refused, %u faults, %u odd; not covered: %u names, %u types, and %u of elements\n",
	       fixture, file, totals.outcomes[REFUSED], totals.outcomes[FAULT],
	       totals.outcomes[NOTED], totals.outcomes[SAME],
	       totals.outcomes[RETYPED], elements);
	copy_free(&copy);
}

static void safetensors_files(void **state)
{
	(void)state;
	flip_safetensors("torch-2.14.1/hf_rank0",
			 "model-00001-of-00001.safetensors");
	flip_safetensors("torch-2.14.1/hf_sharded4_indexed",
			 "shard-00002-model-00001-of-00002.safetensors");
}

static void put_part(FILE *out, struct json_object *object, const char *key,
		     const char *missing)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(object, key, &value);
	fprintf(out, " %s", value ? json_object_to_json_string(value) :
				    missing);
}

/* What the header of the safetensors at @bytes says of the tensors "w" and
 * "i": type, shape, place and where they lie; NULL: it is none. */
static char *tell_header(const unsigned char *bytes, size_t size)
{
	struct json_tokener *tokener = json_tokener_new();
	uint64_t length = bytes_u64le(bytes);
	struct json_object *header = NULL, *value = NULL, *sharding;
	size_t text_size;
	char *text = NULL;
	FILE *out;

	if (length <= size - 8)
		header = json_tokener_parse_ex(tokener,
					       (const char *)bytes + 8,
					       (int)length);
	json_tokener_free(tokener);
	if (!header)
		return NULL;
	out = open_memstream(&text, &text_size);
	assert_non_null(out);
	json_object_object_get_ex(header, "__metadata__", &value);
	json_object_object_get_ex(value, "DCP_SHARDING_INFO", &value);
	sharding = json_object_is_type(value, json_type_string) ?
		   json_tokener_parse(json_object_get_string(value)) : NULL;
	/* What is not said to be a part is whole. */
	put_part(out, sharding, "w", "{ \"saved_offsets\": [ 0, 0 ] }");
	put_part(out, sharding, "i", "{ \"saved_offsets\": [ 0 ] }");
	put_part(out, header, "w", "");
	put_part(out, header, "i", "");
	fclose(out);
	json_object_put(sharding);
	json_object_put(header);
	return text;
}

static void safetensors_in_distcp(void **state)
{
	static const char fixture[] =
		"torch-2.14.1/serialization_format_safetensors";
	unsigned elements = 0, bit;
	struct totals totals = { 0 };
	struct copy copy;
	size_t begin, data;
	char *sound, *flipped;
	void *start;

	(void)state;
	copy_make(&copy, fixture, "__0_0.distcp");
	start = memmem(copy.bytes, copy.size, "{\"__metadata__", 14);
	assert_non_null(start);
	begin = (size_t)((unsigned char *)start - copy.bytes) - 8;
	data = begin + 8 + (size_t)bytes_u64le(copy.bytes + begin);
	sound = tell_header(copy.bytes + begin, copy.size - begin);
	assert_non_null(sound);
	for (bit = 8 * (unsigned)begin; bit < 8 * copy.size; bit++) {
		enum outcome outcome = flip_bit(&copy, bit);
		unsigned char mask = (unsigned char)(1 << bit % 8);

		assert_true(outcome == FAULT || outcome == SAME);
		if (bit / 8 >= data) {
			assert_int_equal(outcome, SAME);
			elements++;
			continue;
		}
		totals.outcomes[outcome]++;
		if (outcome == FAULT)
			continue;
		copy.bytes[bit / 8] ^= mask;
		flipped = tell_header(copy.bytes + begin, copy.size - begin);
		copy.bytes[bit / 8] ^= mask;
		if (!flipped || strcmp(flipped, sound) != 0)
			fail_msg("bit %u of byte %u: a header that says something else, and no word of it: %s",
				 bit % 8, bit / 8, flipped);
		free(flipped);
	}
	printf("%s: header: %u faults, %u not covered: versions and blanks; nor %u of elements\n",
	       fixture, totals.outcomes[FAULT], totals.outcomes[SAME],
	       elements);
	free(sound);
	copy_free(&copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(safetensors_files),
		cmocka_unit_test(safetensors_in_distcp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
