/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the headers of several files to a catalog. An input is an index, empty
 * for none, and headers, with separators between; each header is a file of
 * the next of the names below.
 */
#include "tests/fuzz/catalog_check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/safetensors_file.h"

#include "shard/safetensors/hf.h"

static const char separator[] = "<NEXT>";
static const char *const paths[] = {
	"a.safetensors", "b.safetensors", "model.safetensors",
	"sharded/a.safetensors", "sharded/b.safetensors", "z.safetensors",
};
enum { SEPARATOR_SIZE = sizeof(separator) - 1,
       FILES_MAX = sizeof(paths) / sizeof(paths[0]) };

static size_t part_size(const uint8_t *data, size_t size)
{
	const uint8_t *found = memmem(data, size, separator, SEPARATOR_SIZE);

	return found ? (size_t)(found - data) : size;
}

/* The header in memory of its own; files are as long as they must be. */
static void read_file(struct hf_file *file, const uint8_t *data, size_t size)
{
	void *copy = safetensors_file(data, size);
	unsigned reads = 9;
	struct guarded_input input = safetensors_file_input(
		copy, size, size ? UINT64_MAX / 2 : SAFETENSORS_PREFIX,
		&reads);

	file->error = safetensors_read(&input.input, false, &file->header,
				       &file->fault);
	free(copy);
}

static unsigned read_files(const uint8_t *data, size_t size,
			   struct hf_file *files)
{
	unsigned count = 0;

	while (count < FILES_MAX) {
		size_t part = part_size(data, size);

		files[count].path = paths[count];
		read_file(&files[count++], data, part);
		if (part == size)
			break;
		data += part + SEPARATOR_SIZE;
		size -= part + SEPARATOR_SIZE;
	}
	return count;
}

/* Every shard is one of the tensors of its file, whole. */
static void check_shard(const struct catalog *catalog,
			const struct catalog_entry *entry, uint64_t index,
			const struct hf_file *files, unsigned count)
{
	const struct catalog_shard *shard =
		catalog_shard(catalog, entry, index);
	const char *path = catalog_text(catalog,
		catalog_file(catalog, shard->file)->path);
	const struct safetensors_tensor *tensor;
	const struct safetensors *header = NULL;
	struct box box;
	uint64_t i;

	for (i = 0; i < count; i++)
		if (strcmp(files[i].path, path) == 0)
			header = &files[i].header;
	CHECK(header && shard->flags == CATALOG_RAW);
	catalog_box(catalog, entry, index, &box);
	CHECK(box_volume(&box) * dtype_info(entry->dtype)->size ==
	      shard->size);
	for (i = 0; i < header->tensor_count; i++) {
		tensor = safetensors_tensor(header, i);
		if (tensor->dtype == entry->dtype &&
		    tensor->ndim == entry->ndim &&
		    shard->offset == header->data_offset + tensor->begin &&
		    shard->size == tensor->end - tensor->begin)
			return;
	}
	CHECK(!"a shard that its file does not have");
}

static void check_shards(const struct catalog *catalog,
			 const struct hf_file *files, unsigned count)
{
	uint64_t i, j;

	CHECK(catalog->object_count == 0 && catalog->transform_count == 0);
	for (i = 0; i < catalog->tensor_count && i < CHECK_ENTRIES; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);

		for (j = 0; j < entry->shard_count && j < CHECK_SHARDS; j++)
			check_shard(catalog, entry, j, files, count);
	}
}

static void check_fault(const struct fault *fault, int error)
{
	CHECK(error == -EBADMSG || error == -E2BIG);
	CHECK(fault->error == error && fault->reason);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hf_file *files = calloc(FILES_MAX, sizeof(*files));
	struct notes *notes = calloc(1, sizeof(*notes));
	struct catalog_builder *builder = catalog_builder_create(notes);
	struct array index = { .size = part_size(data, size) };
	struct hf_folder folder = { .files = files };
	struct fault fault = { .error = 0 };
	unsigned count = 0, bad = 0, i;
	struct catalog *catalog;
	int error;

	CHECK(files && notes && builder);
	index.data = malloc(index.size + !index.size);
	memcpy(index.data, data, index.size);
	if (index.size < size)
		count = read_files(data + index.size + SEPARATOR_SIZE,
				   size - index.size - SEPARATOR_SIZE, files);
	folder.count = count;
	folder.index = index.size ? &index : NULL;
	error = hf_read(builder, &folder, &fault, &bad);
	if (error) {
		CHECK(bad <= count && (bad < count || index.size));
		check_fault(&fault, error);
	} else {
		CHECK(catalog_builder_finish(builder, &catalog) == 0);
		check_catalog(catalog);
		check_shards(catalog, files, count);
		catalog_put(catalog);
	}
	for (i = 0; i < count; i++)
		safetensors_finish(&files[i].header);
	catalog_builder_destroy(builder);
	free(index.data);
	free(notes);
	free(files);
	return 0;
}
