/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole checkpoint, through all layers: its folder is opened, every tensor
 * is read, and each byte is compared with the one that its item's layout
 * points at. Objects are read as stored, and shown as JSON.
 *
 * Input: `.metadata`, a separator, and the file `__0_0.distcp`.
 */
#include "tests/fuzz/catalog_check.h"

#include "support/opening.h"
#include "tests/fuzz/fuzz.h"

#include "shard/checkpoint/checkpoint.h"
#include "shard/dcp/object_json.h"
#include "shard/dcp/torch_archive.h"
#include "shard/read/transfer.h"
#include "shard/read/virtual_file.h"
#include "shard/safetensors/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

static const char separator[] = "<DATA>";
static const char *const file_names[] = { ".metadata", "__0_0.distcp" };
enum { SEPARATOR_SIZE = sizeof(separator) - 1, READ_MAX = 4096,
       DECODED_MAX = 1 << 20 };

/* ---- the folder ---------------------------------------------------------- */

static char folder_path[PATH_MAX];
static int folder = -1;

static void remove_folder(void)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		unlinkat(folder, file_names[i], 0);
	rmdir(folder_path);
}

static void make_folder(void)
{
	const char *parent = getenv("TMPDIR");

	if (!parent)
		parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(folder_path, sizeof(folder_path), "%s/ckptfs-fuzz-XXXXXX",
		 parent);
	CHECK(mkdtemp(folder_path));
	folder = open(folder_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(folder >= 0);
	atexit(remove_folder);
}

static void write_file(const char *name, const uint8_t *data, size_t size)
{
	int fd = openat(folder, name,
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	close(fd);
}

/* ---- what must be read --------------------------------------------------- */

struct subject {
	const struct checkpoint *checkpoint;
	const struct catalog_entry *entry;
	const uint8_t *data;	/* of the data file */
	uint64_t size;
	bool known;		/* all shards are in the data file, and in no
				 * need of decoding */
	int errors[CHECK_SHARDS];	/* of layouts */
	struct layout layouts[CHECK_SHARDS];
};

/* Items to be decoded have a target of their own. */
static bool is_known(const struct subject *s)
{
	const struct catalog *catalog = s->checkpoint->catalog;
	uint64_t i;

	for (i = 0; i < s->entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(catalog, s->entry, i);

		if (strcmp(catalog_text(catalog,
					catalog_file(catalog, shard->file)
						->path),
			   file_names[1]) != 0 ||
		    shard->flags & CATALOG_TRANSFORMED)
			return false;
	}
	return true;
}

/* The same, when many tensors share an item; @error: of the item by itself. */
static int find_in_blob(const struct subject *s, uint64_t index,
			const struct box *box, int error, struct layout *ret)
{
	const struct catalog *catalog = s->checkpoint->catalog;
	const struct catalog_shard *shard =
		catalog_shard(catalog, s->entry, index);
	struct input input = input_memory(s->data + shard->offset,
					  s->size - shard->offset);
	struct blob blob;
	bool found;

	if (blob_detect(&input, &found) || !found)
		return error;
	if (blob_open(&input, &blob, NULL))
		return -EIO;
	error = blob_find(&blob, catalog, s->entry, index, &ret->offset) ==
		BLOB_MATCH ? 0 : -EIO;
	blob_close(&blob);
	ret->offset += shard->offset;
	ret->flags = 0;
	box_strides(box->ndim, box->size, ret->stride);
	return error;
}

/* The layout of shard @index, or the error that reading it must give. */
static int find_layout(const struct subject *s, uint64_t index,
		       struct layout *ret)
{
	const struct catalog *catalog = s->checkpoint->catalog;
	const struct catalog_shard *shard =
		catalog_shard(catalog, s->entry, index);
	struct input input;
	struct box box;
	int error;

	if (shard->offset > s->size || shard->size > s->size - shard->offset)
		return -EIO;
	*ret = (struct layout){ .offset = shard->offset, .stride = { 1 } };
	if (s->entry->flags & CATALOG_OBJECT)
		return 0;
	input = input_memory(s->data + shard->offset, shard->size);
	input.base = shard->offset;
	catalog_box(catalog, s->entry, index, &box);
	error = torch_archive_layout(&input, (enum dtype)s->entry->dtype, &box,
				     ret, NULL);
	return error ? find_in_blob(s, index, &box, error, ret) : 0;
}

static void find_layouts(struct subject *s)
{
	uint64_t i;

	s->known = is_known(s);
	for (i = 0; i < s->entry->shard_count && s->known; i++)
		s->errors[i] = find_layout(s, i, &s->layouts[i]);
}

static void negate(uint8_t *bytes, unsigned width, enum dtype_kind kind)
{
	uint64_t number = 0;

	if (kind == DTYPE_KIND_FLOAT || kind == DTYPE_KIND_COMPLEX)
		bytes[width - 1] ^= 0x80;
	if (kind != DTYPE_KIND_INTEGER)
		return;
	memcpy(&number, bytes, width);
	number = -number;
	memcpy(bytes, &number, width);
}

/* The bytes of the element at @place of the file as the mount shows them. */
static void show_element(const struct subject *s, const struct layout *layout,
			 uint64_t place, uint8_t *ret)
{
	const struct dtype_info *info = dtype_info(s->entry->dtype);
	unsigned part, i, width = info->component;

	CHECK(place <= s->size && info->size <= s->size - place);
	for (part = 0; part * width < info->size; part++) {
		uint8_t *to = ret + part * width;

		for (i = 0; i < width; i++)
			to[i] = s->data[place + part * width +
					(layout->flags & LAYOUT_SWAP ?
					 width - 1 - i : i)];
		if (layout->flags & LAYOUT_NEG)
			negate(to, width, info->kind);
		if (layout->flags & LAYOUT_CONJ && part == 1 &&
		    info->kind == DTYPE_KIND_COMPLEX)
			negate(to, width, info->kind);
	}
}

/* Element @index of @selection: 0 with its bytes, or an error. */
static int expect_element(const struct subject *s, const struct box *selection,
			  uint64_t index, uint8_t *ret)
{
	const struct layout *layout;
	uint64_t at[LIMIT_NDIM], place;
	struct box box;
	int64_t owner;
	unsigned i;

	check_position(selection, index, at);
	owner = check_owner(s->checkpoint->catalog, s->entry, at);
	if (owner < 0)
		return -EIO;
	if (s->errors[owner])
		return s->errors[owner];
	layout = &s->layouts[owner];
	catalog_box(s->checkpoint->catalog, s->entry, (uint64_t)owner, &box);
	place = layout->offset;
	for (i = 0; i < box.ndim; i++)
		place += (at[i] - box.offset[i]) * layout->stride[i] *
			 dtype_info(s->entry->dtype)->size;
	show_element(s, layout, place, ret);
	return 0;
}

/* ---- reading ------------------------------------------------------------- */

static void check_bytes(const struct subject *s, const struct transfer *t,
			const struct reply *reply)
{
	uint64_t element = dtype_info(s->entry->dtype)->size, i;
	uint8_t expected[16];

	CHECK(reply->size == t->size);
	for (i = 0; i < reply->size; i++) {
		uint64_t at = t->offset + i;

		if (i == 0 || at % element == 0)
			CHECK(expect_element(s, t->selection, at / element,
					     expected) == 0);
		CHECK(reply->data[i] == expected[at % element]);
	}
}

/* An error has a reason: a shard is missing, or cannot be read. */
static bool can_fail(const struct subject *s)
{
	uint64_t i;

	for (i = 0; i < s->entry->shard_count; i++)
		if (s->errors[i])
			return true;
	return dtype_info(s->entry->dtype)->size == 0 ||
	       s->entry->flags & CATALOG_HOLES;
}

static int read_range(const struct transfer *t, struct reply *reply)
{
	const struct virtual_file_origin origin = {
		.catalog = t->catalog, .selection = *t->selection,
		.entry = (uint64_t)(t->entry - catalog_entry(t->catalog, 0)),
	};
	struct virtual_file *file;
	int error = virtual_file_raw(&origin, &file);

	if (error)
		return error;
	CHECK(reply_begin(reply, NULL, t->size) == 0);
	error = virtual_file_read(file, t->source, t->offset, reply);
	virtual_file_put(file);
	return error;
}

static void check_read(const struct subject *s, const struct box *selection,
		       uint64_t offset, uint64_t size, struct reply *reply)
{
	struct transfer transfer = {
		.source = checkpoint_source(s->checkpoint),
		.catalog = s->checkpoint->catalog, .entry = s->entry,
		.selection = selection, .offset = offset, .size = size,
	};
	int error = read_range(&transfer, reply);

	CHECK(error == 0 || error == -EIO || error == -EOPNOTSUPP);
	if (s->known && !error)
		check_bytes(s, &transfer, reply);
	if (s->known && error)
		CHECK(can_fail(s));
}

static void check_entry(const struct subject *s, struct reply *reply)
{
	uint64_t element = dtype_info(s->entry->dtype)->size, size;
	struct box whole, part;
	unsigned i;

	catalog_shape(s->checkpoint->catalog, s->entry, &whole);
	part = whole;
	for (i = 0; i < part.ndim; i++) {
		part.offset[i] = part.size[i] / 3;
		part.size[i] -= part.offset[i];
	}
	size = s->entry->size < READ_MAX ? s->entry->size : READ_MAX;
	check_read(s, &whole, 0, size, reply);
	if (size > 3)
		check_read(s, &whole, 1, size - 2, reply);
	check_read(s, &whole, s->entry->size - size, size, reply);
	size = box_volume(&part) * element;
	check_read(s, &part, 0, size < READ_MAX ? size : READ_MAX, reply);
}

static int show_object(void *context, const struct input *input)
{
	struct array text = { .data = NULL };
	struct pickle pickle;
	void *data;
	int error = torch_archive_pickle(input, LIMIT_OBJECT_PICKLE_SIZE, &data,
					 &pickle, NULL);

	(void)context;
	if (error)
		return error;
	error = object_json(&pickle, &text);
	array_finish(&text);
	pickle_finish(&pickle);
	free(data);
	return error;
}

static void check_object(const struct subject *s)
{
	const struct catalog_shard *shard =
		catalog_shard(s->checkpoint->catalog, s->entry, 0);
	int error = checkpoint_item(s->checkpoint, shard, show_object,
				     NULL);

	CHECK(error == 0 || error == -EIO || error == -EOPNOTSUPP ||
	      error == -EBADMSG || error == -E2BIG);
}

static void check_checkpoint(const struct checkpoint *c, const uint8_t *data,
			     size_t size)
{
	uint64_t count = c->catalog->tensor_count + c->catalog->object_count;
	struct reply *reply = reply_create();
	uint64_t cursor = 0, i;

	CHECK(reply);
	check_catalog(c->catalog);
	for (i = 0; i < count && i < CHECK_ENTRIES; i++) {
		struct subject s = { .checkpoint = c, .data = data,
				     .size = size };

		s.entry = catalog_entry(c->catalog, i);
		if (s.entry->shard_count > CHECK_SHARDS)
			continue;
		find_layouts(&s);
		check_entry(&s, reply);
		if (s.entry->flags & CATALOG_OBJECT)
			check_object(&s);
	}
	CHECK(opening_is_current(c, &cursor));
	reply_destroy(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *found = memmem(data, size, separator, SEPARATOR_SIZE);
	size_t first = found ? (size_t)(found - data) : size;
	size_t second = found ? size - first - SEPARATOR_SIZE : 0;
	struct checkpoint_report *report = malloc(sizeof(*report));
	struct checkpoint_options options = {
		.cache = decoded_cache_create(DECODED_MAX),
	};
	struct checkpoint *checkpoint;
	int error;

	CHECK(report && options.cache);
	if (folder < 0)
		make_folder();
	write_file(file_names[0], data, first);
	write_file(file_names[1], data + size - second, second);
	error = opening_checkpoint(folder, &options, &checkpoint, report);
	if (error) {
		CHECK(error == -EBADMSG || error == -E2BIG);
		CHECK(report->fault.error == error && report->fault.reason);
		CHECK(strcmp(report->file, file_names[0]) == 0);
	} else {
		check_checkpoint(checkpoint, data + size - second, second);
		opening_close(checkpoint);
	}
	decoded_cache_destroy(options.cache);
	free(report);
	return 0;
}
