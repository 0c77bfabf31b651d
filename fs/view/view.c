/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/view/view.h"

#include "shard/base/name.h"
#include "shard/base/slice.h"
#include "shard/catalog/catalog_json.h"
#include "shard/dcp/object_json.h"
#include "shard/dcp/torch_archive.h"
#include "shard/read/npy.h"
#include "shard/values/convert.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *const view_names[VIEW_COUNT] = {
	[VIEW_TENSORS] = "tensors",
	[VIEW_NPY] = "npy",
	[VIEW_F32] = "f32",
	[VIEW_SAFETENSORS] = "safetensors",
	[VIEW_HF] = "hf",
	[VIEW_OBJECTS] = "objects",
	[VIEW_JSON] = "tensors.json",
};

int view_from_name(const char *name)
{
	int i;

	for (i = 0; i < VIEW_COUNT; i++)
		if (strcmp(name, view_names[i]) == 0)
			return i;
	return -1;
}

/* ---- names --------------------------------------------------------------- */

void view_whole(const struct catalog *catalog, enum view view, uint64_t entry,
		bool json, struct view_file *ret_file)
{
	*ret_file = (struct view_file){ .view = view, .json = json,
					.entry = entry };
	catalog_shape(catalog, catalog_entry(catalog, entry),
		      &ret_file->selection);
}

static bool strip(const char *name, size_t *size, const char *suffix)
{
	size_t suffix_size = strlen(suffix);

	if (*size < suffix_size ||
	    memcmp(name + *size - suffix_size, suffix, suffix_size) != 0)
		return false;
	*size -= suffix_size;
	return true;
}

static bool parse_object(const struct catalog *catalog, const char *name,
			 struct view_file *ret_file)
{
	size_t size = strlen(name);
	bool json = false;
	int64_t entry;

	if (!strip(name, &size, ".pt")) {
		if (!strip(name, &size, ".json"))
			return false;
		json = true;
	}
	entry = catalog_find_object(catalog, name, size);
	if (entry < 0)
		return false;
	view_whole(catalog, VIEW_OBJECTS, (uint64_t)entry, json, ret_file);
	return true;
}

/* The suffix of the files of a view of tensors. */
static const char *suffix_of(enum view view)
{
	switch (view) {
	case VIEW_NPY:
	case VIEW_F32:
		return ".npy";
	case VIEW_SAFETENSORS:
	case VIEW_HF:
		return ".safetensors";
	default:
		return "";
	}
}

/* A type that has floats, though float32 may not hold them. */
static bool is_floating(enum dtype dtype)
{
	return convert_is_possible(dtype, DTYPE_F32);
}

static bool parse_slice(const struct catalog *catalog, const char *text,
			size_t size, struct view_file *file)
{
	const struct catalog_entry *entry =
		catalog_entry(catalog, file->entry);
	struct box whole, written;

	catalog_written_shape(catalog, entry, &whole);
	file->slice = true;
	return slice_parse(text, size, &whole, &written) &&
	       catalog_select(catalog, entry, &written, &file->selection);
}

bool view_parse(const struct catalog *catalog, enum view view,
		const char *name, struct view_file *ret_file)
{
	size_t size = strlen(name);
	struct view_file file = { .json = false };
	const char *bracket;
	int64_t entry;

	if (view == VIEW_OBJECTS)
		return parse_object(catalog, name, ret_file);
	if (!strip(name, &size, suffix_of(view)))
		return false;
	/* Encoded names have no bracket of their own. */
	bracket = memchr(name, '[', size);
	entry = catalog_find_tensor(catalog, name,
				    bracket ? (size_t)(bracket - name) : size);
	if (entry < 0 && !bracket && view == VIEW_SAFETENSORS &&
	    view_group_find(catalog, name, size, &file.group)) {
		file.view = view;
		file.grouped = true;
		*ret_file = file;
		return true;
	}
	if (entry < 0 ||
	    (view == VIEW_F32 && !is_floating(catalog_entry(catalog,
						(uint64_t)entry)->dtype)))
		return false;
	view_whole(catalog, view, (uint64_t)entry, false, &file);
	if (bracket && !parse_slice(catalog, bracket,
				    size - (size_t)(bracket - name), &file))
		return false;
	*ret_file = file;
	return true;
}

bool view_parse_listed(const struct catalog *catalog,
		       const struct array *groups, const char *name,
		       struct view_file *ret_file)
{
	struct view_file file = { .view = VIEW_SAFETENSORS, .grouped = true };
	size_t size = strlen(name);

	if (!strip(name, &size, suffix_of(VIEW_SAFETENSORS)) ||
	    !view_group_find_listed(catalog, groups, name, size, &file.group))
		return false;
	*ret_file = file;
	return true;
}

bool view_lists(const struct catalog *catalog, enum view view, uint64_t entry)
{
	return view != VIEW_F32 ||
	       convert_is_exact(catalog_entry(catalog, entry)->dtype,
				DTYPE_F32);
}

void view_print(const struct catalog *catalog, const struct view_file *file,
		char ret_name[256])
{
	const struct catalog_entry *entry;
	size_t size;

	if (file->grouped) {
		size = view_group_name(catalog, &file->group, ret_name);
	} else {
		entry = catalog_entry(catalog, file->entry);
		size = name_encode(catalog_text(catalog, entry->name),
				   entry->name_size, ret_name);
	}
	if (file->view == VIEW_OBJECTS)
		strcpy(ret_name + size, file->json ? ".json" : ".pt");
	else
		strcpy(ret_name + size, suffix_of(file->view));
}

/* ---- bytes --------------------------------------------------------------- */

int view_content(const struct catalog *catalog, const struct view_file *file,
		 struct virtual_file **ret_content)
{
	struct virtual_file_origin origin = {
		.catalog = catalog,
		.entry = file->entry,
		.selection = file->selection,
	};

	if (file->view == VIEW_F32) {
		if (!view_lists(catalog, VIEW_F32, file->entry))
			return -EOPNOTSUPP;
		origin.dtype = DTYPE_F32;
	}
	switch (file->view) {
	case VIEW_NPY:
	case VIEW_F32:
		return virtual_file_npy(&origin, ret_content);
	case VIEW_SAFETENSORS:
		return virtual_file_safetensors_slice(&origin, ret_content);
	default:
		return virtual_file_raw(&origin, ret_content);
	}
}

int view_size(const struct catalog *catalog, const struct view_file *file,
	      uint64_t *ret_size)
{
	const struct catalog_entry *entry =
		catalog_entry(catalog, file->entry);
	const struct dtype_info *info = dtype_info(entry->dtype);
	char header[NPY_HEADER_MAX];
	struct virtual_file *content;
	int error;

	/* The two of which there are many do without an allocation. */
	if (file->view == VIEW_TENSORS || file->view == VIEW_NPY) {
		*ret_size = box_volume(&file->selection) * info->size;
		if (file->view == VIEW_NPY)
			*ret_size += npy_header(entry->dtype,
						&file->selection, header);
		return 0;
	}
	error = view_content(catalog, file, &content);
	if (error)
		return error;
	*ret_size = virtual_file_size(content);
	virtual_file_put(content);
	return 0;
}

/* ---- attributes ---------------------------------------------------------- */

enum { PREFIX_SIZE = sizeof("user.ckptfs.") - 1 };

static const char *const attribute_names[] = {
	"user.ckptfs.name", "user.ckptfs.dtype", "user.ckptfs.torch_dtype",
	"user.ckptfs.shape", "user.ckptfs.shards",
};

/* Objects have a name only, groups of tensors nothing. */
static size_t attribute_count(const struct view_file *file)
{
	return file->grouped ? 0 : file->view == VIEW_OBJECTS ? 1 :
	       sizeof(attribute_names) / sizeof(attribute_names[0]);
}

bool view_is_attribute(const char *name)
{
	return strncmp(name, attribute_names[0], PREFIX_SIZE) == 0;
}

static int append_text(struct array *out, const char *text)
{
	return array_append(out, text, strlen(text));
}

int view_attribute(const struct checkpoint *checkpoint,
		   const struct view_file *file, const char *name,
		   struct array *out)
{
	const struct owned_catalog owned = checkpoint_owned(checkpoint);
	const struct catalog *catalog = checkpoint->catalog;
	const struct catalog_entry *entry =
		catalog_entry(catalog, file->entry);
	struct box written;
	size_t i;

	for (i = 0; i < attribute_count(file); i++)
		if (strcmp(name, attribute_names[i]) == 0)
			break;
	if (i == attribute_count(file))
		return -ENODATA;
	name += PREFIX_SIZE;
	if (strcmp(name, "name") == 0)
		return array_append(out, catalog_text(catalog, entry->name),
				    entry->name_size);
	if (strcmp(name, "dtype") == 0)
		return append_text(out, dtype_info(entry->dtype)->name);
	if (strcmp(name, "torch_dtype") == 0)
		return entry->type_name_size ?
		       array_append(out, catalog_text(catalog,
						      entry->type_name),
				    entry->type_name_size) :
		       append_text(out, dtype_info(entry->dtype)->torch);
	if (strcmp(name, "shape") == 0) {
		catalog_written(catalog, entry, &file->selection, &written);
		return catalog_json_shape(&written, out);
	}
	return catalog_json_shards(&owned, entry,
				   file->slice ? &file->selection : NULL,
				   LIMIT_XATTR_SIZE, out);
}

int view_attributes(const struct view_file *file, struct array *out)
{
	size_t i;
	int error = 0;

	for (i = 0; i < attribute_count(file) && !error; i++)
		error = array_append(out, attribute_names[i],
				     strlen(attribute_names[i]) + 1);
	return error;
}

/* ---- objects ------------------------------------------------------------- */

static const struct catalog_shard *
object_shard(const struct catalog *catalog, uint64_t entry)
{
	return catalog_shard(catalog, catalog_entry(catalog, entry), 0);
}

bool view_is_decoded(const struct catalog *catalog,
		     const struct view_file *file)
{
	return file->view == VIEW_OBJECTS && !file->json &&
	       object_shard(catalog, file->entry)->flags &
	       CATALOG_TRANSFORMED;
}

static int copy_item(void *context, const struct input *input)
{
	void *room;

	if (input->size > LIMIT_OBJECT_MEMORY)
		return -EOPNOTSUPP;
	room = array_add(context, input->size);
	return room ? input->read(input, room, input->size, 0) : -ENOMEM;
}

int view_object(const struct checkpoint *checkpoint, uint64_t entry,
		struct array *out)
{
	int error = checkpoint_item(checkpoint,
				    object_shard(checkpoint->catalog, entry),
				    copy_item, out);

	return error == -E2BIG ? -EOPNOTSUPP : error;
}

/* ---- JSON ---------------------------------------------------------------- */

static int print_object(void *context, const struct input *input)
{
	struct pickle pickle;
	void *data;
	int error = torch_archive_pickle(input, LIMIT_OBJECT_PICKLE_SIZE, &data,
					 &pickle, NULL);

	/* Not ours to judge: NAME.pt has it as it is. */
	if (error)
		return error == -ENOMEM || error == -ESTALE ? error :
							      -EOPNOTSUPP;
	error = object_json(&pickle, context);
	pickle_finish(&pickle);
	free(data);
	return error;
}

int view_object_json(const struct checkpoint *checkpoint, uint64_t entry,
		     struct array *out)
{
	int error = checkpoint_item(checkpoint,
				    object_shard(checkpoint->catalog, entry),
				    print_object, out);

	/* An item that cannot be read has no plain data to show. */
	return error == -EIO ? -EOPNOTSUPP : error;
}

static int write_all(int fd, const struct array *text)
{
	size_t done = 0;

	while (done < text->size) {
		ssize_t size = write(fd, text->data + done, text->size - done);

		if (size < 0 && errno != EINTR)
			return -errno;
		if (size > 0)
			done += (size_t)size;
	}
	return 0;
}

/* Lines are written out as they are made: a catalog may have many. */
static int print_tensors(const struct checkpoint *checkpoint, int fd)
{
	const struct owned_catalog owned = checkpoint_owned(checkpoint);
	const struct catalog *catalog = checkpoint->catalog;
	uint64_t budget = LIMIT_JSON_FACTOR * catalog->size + LIMIT_JSON_SLACK;
	struct array text = { .data = NULL };
	uint64_t i;
	int error = array_append(&text, "[\n", 2);

	for (i = 0; i < catalog->tensor_count && !error; i++) {
		error = catalog_json_tensor(&owned, i, budget, &text);
		if (!error)
			error = i + 1 < catalog->tensor_count ?
				array_append(&text, ",\n", 2) :
				array_append(&text, "\n", 1);
		if (!error && text.size > budget)
			error = -E2BIG;
		if (!error && text.size > MIB) {
			error = write_all(fd, &text);
			budget -= text.size;
			text.size = 0;
		}
	}
	if (!error)
		error = array_append(&text, "]\n", 2);
	if (!error)
		error = write_all(fd, &text);
	array_finish(&text);
	return error;
}

int view_tensors_json(const struct checkpoint *checkpoint, int *ret_fd,
		      uint64_t *ret_size)
{
	int fd = memfd_create("tensors.json", MFD_CLOEXEC), error;
	off_t size;

	if (fd < 0)
		return -errno;
	error = print_tensors(checkpoint, fd);
	if (error) {
		close(fd);
		return error;
	}
	size = lseek(fd, 0, SEEK_CUR);
	*ret_fd = fd;
	*ret_size = (uint64_t)size;
	return 0;
}
