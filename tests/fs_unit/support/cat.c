/* SPDX-License-Identifier: Apache-2.0 */
#include "support/cat.h"

#include "support/test.h"
#include "support/sample.h"

#include <stdlib.h>
#include <string.h>

enum { PART = 64 * 1024 };

static int read_all(struct kernel *kernel, uint64_t node, uint64_t handle,
		    char **ret_data, size_t *ret_size)
{
	char *data = malloc(PART + 1);
	size_t size = 0, got;
	int error;

	for (;;) {
		assert_non_null(data);
		error = kernel_read(kernel, node, handle, size, PART,
				    data + size, &got);
		if (error || got == 0)
			break;
		size += got;
		data = realloc(data, size + PART + 1);
	}
	if (error) {
		free(data);
		return error;
	}
	data[size] = '\0';
	*ret_data = data;
	*ret_size = size;
	return 0;
}

static int cat_entry(struct kernel *kernel, const char *path,
		     struct fuse_entry_out *ret_entry, char **ret_data,
		     size_t *ret_size)
{
	struct fuse_open_out open;
	int error = kernel_walk(kernel, path, ret_entry);

	if (error)
		return error;
	error = kernel_open(kernel, ret_entry->nodeid, &open);
	if (!error) {
		error = read_all(kernel, ret_entry->nodeid, open.fh, ret_data,
				 ret_size);
		kernel_release(kernel, ret_entry->nodeid, open.fh);
	}
	kernel_forget(kernel, ret_entry->nodeid, 1);
	return error;
}

int cat_file(struct kernel *kernel, const char *path, char **ret_data,
	     size_t *ret_size)
{
	struct fuse_entry_out entry;

	return cat_entry(kernel, path, &entry, ret_data, ret_size);
}

int cat_error(struct kernel *kernel, const char *path)
{
	size_t size;
	char *data;
	int error = cat_file(kernel, path, &data, &size);

	if (!error)
		free(data);
	return error;
}

void cat_check(struct kernel *kernel, const char *path, const void *data,
	       size_t size)
{
	struct fuse_entry_out entry;
	size_t got;
	char *bytes = NULL;

	assert_int_equal(cat_entry(kernel, path, &entry, &bytes, &got), 0);
	assert_int_equal(entry.attr.size, size);
	assert_int_equal(got, size);
	assert_memory_equal(bytes, data, size);
	free(bytes);
}

void cat_check_text(struct kernel *kernel, const char *path, const char *text)
{
	cat_check(kernel, path, text, strlen(text));
}

void cat_check_sample(struct kernel *kernel, const char *path,
		      unsigned char first, unsigned begin, unsigned size)
{
	unsigned char *bytes = malloc(size + 1);
	unsigned i;

	assert_non_null(bytes);
	for (i = 0; i < size; i++)
		bytes[i] = sample_byte(first, begin + i);
	cat_check(kernel, path, bytes, size);
	free(bytes);
}

void cat_check_list(struct kernel *kernel, const char *path, const char *names)
{
	char *found;

	assert_int_equal(kernel_list(kernel, path, &found), 0);
	assert_string_equal(found, names);
	free(found);
}

char *cat_attribute(struct kernel *kernel, const char *path, const char *name)
{
	struct fuse_entry_out entry;
	char *value = malloc(PART + 1);
	size_t size;

	assert_non_null(value);
	assert_int_equal(kernel_walk(kernel, path, &entry), 0);
	assert_int_equal(kernel_getxattr(kernel, entry.nodeid, name, value,
					 PART, &size), 0);
	value[size] = '\0';
	kernel_forget(kernel, entry.nodeid, 1);
	return value;
}
