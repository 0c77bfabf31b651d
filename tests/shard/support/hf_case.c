/* SPDX-License-Identifier: Apache-2.0 */
#include "support/hf_case.h"

#include "support/test.h"
#include "support/catalog_out.h"
#include "support/put.h"
#include "support/refusal.h"
#include "support/safetensors_out.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hf_case hf_case;

void hf_case_clear(void)
{
	while (hf_case.file_count > 0)
		safetensors_finish(&hf_case.files[--hf_case.file_count].header);
	memset(hf_case.files, 0, sizeof(hf_case.files));
	memset(&hf_case.notes, 0, sizeof(hf_case.notes));
	memset(&hf_case.fault, 0, sizeof(hf_case.fault));
	catalog_put(hf_case.catalog);
	hf_case.catalog = NULL;
	hf_case.bad = 77;
}

int hf_case_teardown(void **state)
{
	(void)state;
	hf_case_clear();
	return 0;
}

/* The file @path, with all the data that its header asks for; a header that
 * is refused makes a bad file. */
void hf_case_add(const char *path, const char *header)
{
	struct hf_file *file = &hf_case.files[hf_case.file_count++];
	struct array bytes = { .data = NULL };
	struct input input;

	assert_true(hf_case.file_count <= HF_CASE_FILES);
	file->path = path;
	safetensors_out(&bytes, header, strlen(header), 65536);
	input = input_memory(bytes.data, bytes.size);
	file->error =
		safetensors_read(&input, false, &file->header, &file->fault);
	array_finish(&bytes);
}

int hf_case_read(const char *text)
{
	struct catalog_builder *builder = catalog_out_create(&hf_case.notes);
	struct array index = { .data = (char *)(uintptr_t)text,
			       .size = text ? strlen(text) : 0 };
	const struct hf_folder folder = { hf_case.files, hf_case.file_count,
					  text ? &index : NULL };
	int error = hf_read(builder, &folder, &hf_case.fault, &hf_case.bad);

	if (error) {
		catalog_builder_destroy(builder);
		assert_int_equal(hf_case.fault.error, error);
		assert_non_null(hf_case.fault.reason);
		assert_true(hf_case.bad <= hf_case.file_count);
	} else {
		hf_case.catalog = catalog_out_finish(builder);
	}
	return error;
}

void hf_case_read_good(const char *index)
{
	if (hf_case_read(index))
		fail_msg("file %u, byte %" PRIu64 ": %s: %s", hf_case.bad,
			 hf_case.fault.offset, hf_case.fault.reason,
			 hf_case.fault.detail);
}

void hf_case_refused(int error, unsigned file, const char *reason)
{
	assert_int_equal(hf_case_read(NULL), error);
	refusal_check(reason, &hf_case.fault, error, hf_case.fault.offset,
		      reason);
	assert_int_equal(hf_case.bad, file);
}

const struct catalog_entry *hf_case_entry(const char *name)
{
	int64_t index =
		catalog_find_tensor(hf_case.catalog, name, strlen(name));

	if (index < 0)
		fail_msg("no tensor %s", name);
	return catalog_entry(hf_case.catalog, (uint64_t)index);
}

/* A row: name, shape, and its shards as "FILE@BEGIN [o,o]+[s,s]; ...", where
 * BEGIN counts from the data of the file. */
static void describe(const char *name, char *out)
{
	const struct catalog_entry *entry = hf_case_entry(name);
	struct box box;
	unsigned i, j;

	catalog_written_shape(hf_case.catalog, entry, &box);
	*out++ = '(';
	for (j = 0; j < box.ndim; j++)
		out += sprintf(out, "%s%" PRIu64, j ? "," : "", box.size[j]);
	out += sprintf(out, ")");
	for (i = 0; i < entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(hf_case.catalog, entry, i);
		const char *path = catalog_text(
			hf_case.catalog,
			catalog_file(hf_case.catalog, shard->file)->path);
		unsigned file = 0;

		while (strcmp(hf_case.files[file].path, path) != 0)
			file++;
		catalog_box(hf_case.catalog, entry, i, &box);
		assert_int_equal(shard->flags, CATALOG_RAW);
		assert_true(shard->size ==
			    box_volume(&box) * dtype_info(entry->dtype)->size);
		out += sprintf(out, " %s@%" PRIu64, path,
			       shard->offset -
				       hf_case.files[file].header.data_offset);
		for (j = 0; j < 2 * box.ndim; j++)
			out += sprintf(out, "%s%" PRIu64,
				       j == box.ndim ? "+" :
				       j	     ? "," :
						       ":",
				       j < box.ndim ? box.offset[j] :
						      box.size[j - box.ndim]);
	}
}

void hf_case_check(const char *name, const char *expected)
{
	char text[4096];

	describe(name, text);
	assert_string_equal(text, expected);
}
