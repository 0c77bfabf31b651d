/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/view.h"

#include "shard/catalog_json.h"
#include "shard/item.h"
#include "shard/name.h"
#include "shard/npy.h"
#include "shard/object_json.h"
#include "shard/slice.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *const view_names[VIEW_COUNT] = {
	[VIEW_TENSORS] = "tensors",
	[VIEW_NPY] = "npy",
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
	ret_file->view = view;
	ret_file->json = json;
	ret_file->slice = false;
	ret_file->entry = entry;
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

bool view_parse(const struct catalog *catalog, enum view view,
		const char *name, struct view_file *ret_file)
{
	size_t size = strlen(name);
	struct view_file file;
	const char *bracket;
	int64_t entry;

	if (view == VIEW_OBJECTS)
		return parse_object(catalog, name, ret_file);
	if (view == VIEW_NPY && !strip(name, &size, ".npy"))
		return false;
	/* Encoded names have no bracket of their own. */
	bracket = memchr(name, '[', size);
	entry = catalog_find_tensor(catalog, name,
				    bracket ? (size_t)(bracket - name) : size);
	if (entry < 0)
		return false;
	view_whole(catalog, view, (uint64_t)entry, false, &file);
	if (bracket) {
		struct box whole = file.selection;

		if (!slice_parse(bracket, size - (size_t)(bracket - name),
				 &whole, &file.selection))
			return false;
		file.slice = true;
	}
	*ret_file = file;
	return true;
}

void view_print(const struct catalog *catalog, const struct view_file *file,
		char ret_name[256])
{
	const struct catalog_entry *entry =
		catalog_entry(catalog, file->entry);
	size_t size = name_encode(catalog_text(catalog, entry->name),
				  entry->name_size, ret_name);

	if (file->view == VIEW_NPY)
		strcpy(ret_name + size, ".npy");
	else if (file->view == VIEW_OBJECTS)
		strcpy(ret_name + size, file->json ? ".json" : ".pt");
}

/* ---- sizes --------------------------------------------------------------- */

size_t view_header(const struct catalog *catalog, const struct view_file *file,
		   char ret_header[])
{
	if (file->view != VIEW_NPY)
		return 0;
	return npy_header(catalog_entry(catalog, file->entry)->dtype,
			  &file->selection, ret_header);
}

uint64_t view_data_size(const struct catalog *catalog,
			const struct view_file *file)
{
	const struct catalog_entry *entry =
		catalog_entry(catalog, file->entry);

	return box_volume(&file->selection) * dtype_info(entry->dtype)->size;
}

/* ---- attributes ---------------------------------------------------------- */

enum { PREFIX_SIZE = sizeof("user.ckptfs.") - 1 };

static const char *const attribute_names[] = {
	"user.ckptfs.name", "user.ckptfs.dtype", "user.ckptfs.torch_dtype",
	"user.ckptfs.shape", "user.ckptfs.shards",
};

/* Objects have a name only. */
static size_t attribute_count(const struct view_file *file)
{
	return file->view == VIEW_OBJECTS ? 1 :
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

int view_attribute(const struct catalog *catalog, const struct view_file *file,
		   const char *name, struct array *out)
{
	const struct catalog_entry *entry =
		catalog_entry(catalog, file->entry);
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
	if (strcmp(name, "shape") == 0)
		return catalog_json_shape(&file->selection, out);
	return catalog_json_shards(catalog, entry,
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

/* ---- JSON ---------------------------------------------------------------- */

static int print_object(void *context, const struct input *input)
{
	struct pickle pickle;
	void *data;
	int error = item_pickle(input, LIMIT_OBJECT_PICKLE_SIZE, &data, &pickle,
				NULL);

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
	const struct catalog *catalog = checkpoint->catalog;
	int error;

	error = checkpoint_item(checkpoint,
				catalog_shard(catalog,
					      catalog_entry(catalog, entry),
					      0),
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
static int print_tensors(const struct catalog *catalog, int fd)
{
	uint64_t budget = LIMIT_JSON_FACTOR * catalog->size + LIMIT_JSON_SLACK;
	struct array text = { .data = NULL };
	uint64_t i;
	int error = array_append(&text, "[\n", 2);

	for (i = 0; i < catalog->tensor_count && !error; i++) {
		error = catalog_json_tensor(catalog, i, budget, &text);
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

int view_tensors_json(const struct catalog *catalog, int *ret_fd,
		      uint64_t *ret_size)
{
	int fd = memfd_create("tensors.json", MFD_CLOEXEC), error;
	off_t size;

	if (fd < 0)
		return -errno;
	error = print_tensors(catalog, fd);
	if (error) {
		close(fd);
		return error;
	}
	size = lseek(fd, 0, SEEK_CUR);
	*ret_fd = fd;
	*ret_size = (uint64_t)size;
	return 0;
}
