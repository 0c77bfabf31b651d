/* SPDX-License-Identifier: Apache-2.0 */
/* Random tensors, cut at random into the shards of some files, against what
 * was cut. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/hf_case.h"
#include "support/put.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct dice dice;

/* The parts of a world in some files: those of one file have keys of their
 * own. */
static void add_world(const struct world *world, unsigned in_files, bool stated)
{
	struct array texts[HF_CASE_FILES][2];
	uint64_t ends[HF_CASE_FILES] = { 0 };
	static char paths[HF_CASE_FILES][8];
	unsigned i, j;

	memset(texts, 0, sizeof(texts));
	for (i = 0; i < world->part_count; i++) {
		const struct box *part = &world->parts[i];
		unsigned file = (unsigned)dice_below(&dice, in_files);
		uint64_t size =
			box_volume(part) * dtype_info(world->dtype)->size;
		char offsets[300] = "", sizes[300] = "", global[300] = "";
		char text[1400];

		for (j = 0; j < part->ndim; j++) {
			sprintf(strchr(offsets, 0), "%s%" PRIu64, j ? ", " : "",
				part->offset[j]);
			sprintf(strchr(sizes, 0), "%s%" PRIu64, j ? ", " : "",
				part->size[j]);
			sprintf(strchr(global, 0), "%s%" PRIu64, j ? ", " : "",
				world->shape.size[j]);
		}
		snprintf(text, sizeof(text),
			 "%s\\\"k%u\\\": {"
			 "\\\"saved_offsets\\\": [%s], %s%s%s"
			 "\\\"logical_fqn\\\": \\\"w\\\"}",
			 texts[file][0].size ? ", " : "", i, offsets,
			 stated ? "\\\"global_shape\\\": [" : "",
			 stated ? global : "", stated ? "], " : "");
		put_bytes(&texts[file][0], text, strlen(text));
		snprintf(text, sizeof(text),
			 ",\"k%u\":{\"dtype\":\"%s\","
			 "\"shape\":[%s],\"data_offsets\":[%" PRIu64 ",%" PRIu64
			 "]}",
			 i, dtype_info(world->dtype)->name, sizes, ends[file],
			 ends[file] + size);
		ends[file] += size;
		put_bytes(&texts[file][1], text, strlen(text));
	}
	for (i = 0; i < in_files; i++) {
		struct array header = { .data = NULL };

		PUT(&header, "{\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{");
		put_bytes(&header, texts[i][0].data, texts[i][0].size);
		PUT(&header, "}\"}");
		put_bytes(&header, texts[i][1].data, texts[i][1].size);
		PUT(&header, "}\0");
		sprintf(paths[i], "f%u", i);
		hf_case_add(paths[i], header.data);
		assert_int_equal(hf_case.files[i].error, 0);
		array_finish(&header);
		array_finish(&texts[i][0]);
		array_finish(&texts[i][1]);
	}
}

/* Which part does shard @index hold? Its place in the file tells. */
static void check_shard(const struct world *world,
			const struct catalog_entry *entry, uint64_t index)
{
	const struct catalog_shard *shard =
		catalog_shard(hf_case.catalog, entry, index);
	const char *path =
		catalog_text(hf_case.catalog,
			     catalog_file(hf_case.catalog, shard->file)->path);
	const struct safetensors *header = &hf_case.files[path[1] - '0'].header;
	uint64_t begin = shard->offset - header->data_offset, i;
	struct box box;

	catalog_box(hf_case.catalog, entry, index, &box);
	for (i = 0; i < header->tensor_count; i++) {
		const struct safetensors_tensor *tensor =
			safetensors_tensor(header, i);
		const struct box *part;
		char name[8] = "";

		memcpy(name, safetensors_name(header, tensor),
		       tensor->name_size);
		part = &world->parts[atoi(name + 1)];
		if (tensor->begin == begin &&
		    tensor->end - begin == shard->size &&
		    memcmp(box.size, part->size, box.ndim * 8) == 0 &&
		    memcmp(box.offset, part->offset, box.ndim * 8) == 0)
			return;
	}
	fail_msg("shard %d of %s is none of the parts", (int)index, path);
}

static void random_shards(void **state)
{
	static const struct world_limits limits = { 5, 400, 20, 20 };
	unsigned i, taken = 0;

	(void)state;
	for (i = 0; i < 1000; i++) {
		const struct catalog_entry *entry;
		struct world world;
		struct box shape;
		uint64_t j, filled = 0;

		world_make(&world, &limits, &dice);
		if (!dtype_info(world.dtype)->order || world.part_count == 0)
			continue;
		taken++;
		add_world(&world,
			  1 + (unsigned)dice_below(&dice, HF_CASE_FILES), true);
		hf_case_read_good(NULL);
		entry = hf_case_entry("w");
		assert_int_equal(entry->dtype, world.dtype);
		catalog_shape(hf_case.catalog, entry, &shape);
		assert_int_equal(shape.ndim, world.shape.ndim);
		assert_memory_equal(shape.size, world.shape.size,
				    shape.ndim * sizeof(uint64_t));
		/* Of empty parts in one place one is enough. */
		assert_true(entry->shard_count <= world.part_count);
		for (j = 0; j < world.part_count; j++)
			filled += box_volume(&world.parts[j]) > 0;
		assert_true(entry->shard_count >= filled);
		for (j = 0; j < entry->shard_count; j++)
			check_shard(&world, entry, j);
		hf_case_clear();
	}
	assert_true(taken > 300);
}

/* Without a stated shape it is what the parts reach. */
static void random_reach(void **state)
{
	static const struct world_limits limits = { 4, 300, 30, 0 };
	unsigned i, j, k;

	(void)state;
	for (i = 0; i < 300; i++) {
		uint64_t reach[LIMIT_NDIM] = { 0 };
		struct world world;
		struct box shape;

		world_make(&world, &limits, &dice);
		if (!dtype_info(world.dtype)->order || world.part_count == 0)
			continue;
		for (j = 0; j < world.part_count; j++)
			for (k = 0; k < world.shape.ndim; k++) {
				uint64_t end = world.parts[j].offset[k] +
					       world.parts[j].size[k];

				reach[k] = end > reach[k] ? end : reach[k];
			}
		add_world(&world, 3, false);
		hf_case_read_good(NULL);
		catalog_shape(hf_case.catalog, hf_case_entry("w"), &shape);
		assert_memory_equal(shape.size, reach,
				    shape.ndim * sizeof(uint64_t));
		hf_case_clear();
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, hf_case_teardown)
	const struct CMUnitTest tests[] = {
		TEST(random_shards),
		TEST(random_reach),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("hf_random", tests, NULL, NULL);
}
