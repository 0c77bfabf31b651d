/* SPDX-License-Identifier: Apache-2.0 */
#include "support/paths.h"

#include "support/test.h"
#include "support/mounts.h"
#include "support/stall.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { READ_MAX = 1 << 20 };

struct fuse_entry_out paths_entry(const char *path)
{
	struct fuse_entry_out entry;
	int error = kernel_walk(mounts_kernel(0), path, &entry);

	if (error)
		fail_msg("%s: error %d", path, -error);
	return entry;
}

uint64_t paths_find(const char *path)
{
	return *path ? paths_entry(path).nodeid : FUSE_ROOT_ID;
}

int paths_error(const char *path)
{
	struct fuse_entry_out entry;

	return kernel_walk(mounts_kernel(0), path, &entry);
}

bool paths_is_known(uint64_t node)
{
	struct fuse_attr_out attr;
	int error = kernel_getattr(mounts_kernel(0), node, &attr);

	if (error)
		assert_int_equal(error, -ESTALE);
	return !error;
}

void paths_check_gone(uint64_t node)
{
	/* Who works on something holds it until he is done, which may be after
	 * his answer. */
	stall_settle(0);
	assert_false(paths_is_known(node));
}

void paths_check_names(const char *path, const char *names)
{
	char *found;

	assert_int_equal(kernel_list(mounts_kernel(0), path, &found), 0);
	assert_string_equal(found, names);
	free(found);
}

struct fuse_open_out paths_open(uint64_t node)
{
	struct fuse_open_out open;

	assert_int_equal(kernel_open(mounts_kernel(0), node, &open), 0);
	return open;
}

unsigned char *paths_read_open(uint64_t node, uint64_t handle,
			       size_t *ret_size)
{
	unsigned char *bytes = NULL;
	size_t size = 0, got;

	do {
		bytes = realloc(bytes, size + READ_MAX + 1);
		assert_non_null(bytes);
		assert_int_equal(kernel_read(mounts_kernel(0), node, handle,
					     size, READ_MAX, bytes + size,
					     &got), 0);
		size += got;
	} while (got == READ_MAX);
	bytes[size] = 0;
	if (ret_size)
		*ret_size = size;
	return bytes;
}

unsigned char *paths_read(const char *path, size_t *ret_size)
{
	uint64_t node = paths_find(path);
	struct fuse_open_out open = paths_open(node);
	unsigned char *bytes = paths_read_open(node, open.fh, ret_size);

	kernel_release(mounts_kernel(0), node, open.fh);
	return bytes;
}

uint64_t paths_metric(const char *text, const char *line)
{
	const char *found = text;
	size_t size = strlen(line);

	while (strncmp(found, line, size) != 0 || found[size] != ' ') {
		found = strchr(found, '\n');
		if (!found) {
			fail_msg("no %s", line);
			return 0;
		}
		found++;
	}
	return strtoull(found + size, NULL, 10);
}
