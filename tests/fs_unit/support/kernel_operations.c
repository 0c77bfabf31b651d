/* SPDX-License-Identifier: Apache-2.0 */
/* Whole operations, made of requests and their answers. */
#define FUSE_USE_VERSION 314
#include "support/kernel.h"

#include "support/test.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- whole operations ---------------------------------------------------- */

uint64_t kernel_ask_lookup(struct kernel *kernel, uint64_t parent,
			   const char *name)
{
	return kernel_ask(kernel, FUSE_LOOKUP, parent, NULL, 0, name);
}

int kernel_lookup(struct kernel *kernel, uint64_t parent, const char *name,
		  struct fuse_entry_out *ret_entry)
{
	uint64_t unique = kernel_ask_lookup(kernel, parent, name);
	size_t got;
	int error = kernel_answer(kernel, unique, ret_entry,
				  sizeof(*ret_entry), &got);

	if (!error)
		assert_int_equal(got, sizeof(*ret_entry));
	return error;
}

int kernel_walk(struct kernel *kernel, const char *path,
		struct fuse_entry_out *ret_entry)
{
	uint64_t node = FUSE_ROOT_ID;
	char name[256];
	int error;

	for (;;) {
		size_t size = strcspn(path, "/");

		assert_true(size > 0 && size < sizeof(name));
		memcpy(name, path, size);
		name[size] = '\0';
		error = kernel_lookup(kernel, node, name, ret_entry);
		if (error || !path[size])
			return error;
		node = ret_entry->nodeid;
		path += size + 1;
	}
}

void kernel_forget(struct kernel *kernel, uint64_t node, uint64_t count)
{
	const struct fuse_forget_in in = { .nlookup = count };

	/* Has no answer. */
	kernel_ask(kernel, FUSE_FORGET, node, &in, sizeof(in), NULL);
}

void kernel_forget_multi(struct kernel *kernel,
			 const struct fuse_forget_one *forgets,
			 uint32_t count)
{
	const struct fuse_batch_forget_in in = { .count = count };
	size_t size = count * sizeof(*forgets);
	unsigned char *args = malloc(sizeof(in) + size);

	assert_non_null(args);
	memcpy(args, &in, sizeof(in));
	memcpy(args + sizeof(in), forgets, size);
	/* Has no answer either. */
	kernel_ask(kernel, FUSE_BATCH_FORGET, 0, args, sizeof(in) + size,
		   NULL);
	free(args);
}

int kernel_getattr(struct kernel *kernel, uint64_t node,
		   struct fuse_attr_out *ret_attr)
{
	const struct fuse_getattr_in in = { .getattr_flags = 0 };

	return kernel_answer(kernel,
			     kernel_ask(kernel, FUSE_GETATTR, node, &in,
					sizeof(in), NULL),
			     ret_attr, sizeof(*ret_attr), NULL);
}

int kernel_readlink(struct kernel *kernel, uint64_t node, char ret[4096])
{
	size_t got;
	int error = kernel_answer(kernel,
				  kernel_ask(kernel, FUSE_READLINK, node, NULL,
					     0, NULL),
				  ret, 4095, &got);

	if (!error)
		ret[got] = '\0';
	return error;
}

/* The answer to getxattr and listxattr: @size bytes at most, or, if that is 0,
 * how many there are. */
static int take_value(struct kernel *kernel, uint64_t unique, void *out,
		      size_t size, size_t *ret_got)
{
	struct fuse_getxattr_out needed;
	int error;

	if (size > 0)
		return kernel_answer(kernel, unique, out, size, ret_got);
	error = kernel_answer(kernel, unique, &needed, sizeof(needed), NULL);
	if (!error)
		*ret_got = needed.size;
	return error;
}

int kernel_getxattr(struct kernel *kernel, uint64_t node, const char *name,
		    void *out, size_t size, size_t *ret_got)
{
	const struct fuse_getxattr_in in = { .size = (uint32_t)size };

	return take_value(kernel, kernel_ask(kernel, FUSE_GETXATTR, node, &in,
					     sizeof(in), name),
			  out, size, ret_got);
}

int kernel_listxattr(struct kernel *kernel, uint64_t node, void *out,
		     size_t size, size_t *ret_got)
{
	const struct fuse_getxattr_in in = { .size = (uint32_t)size };

	return take_value(kernel, kernel_ask(kernel, FUSE_LISTXATTR, node, &in,
					     sizeof(in), NULL),
			  out, size, ret_got);
}

int kernel_statfs(struct kernel *kernel, uint64_t node,
		  struct fuse_statfs_out *ret_status)
{
	return kernel_answer(kernel, kernel_ask(kernel, FUSE_STATFS, node,
						NULL, 0, NULL),
			     ret_status, sizeof(*ret_status), NULL);
}

/* One thread takes requests, in their order, and answers this one itself. */
void kernel_settle(struct kernel *kernel)
{
	struct fuse_statfs_out status;

	assert_int_equal(kernel_statfs(kernel, FUSE_ROOT_ID, &status), 0);
}

static uint64_t ask_open(struct kernel *kernel, uint32_t opcode, uint64_t node)
{
	const struct fuse_open_in in = { .flags = 0 };

	return kernel_ask(kernel, opcode, node, &in, sizeof(in), NULL);
}

uint64_t kernel_ask_open(struct kernel *kernel, uint64_t node)
{
	return ask_open(kernel, FUSE_OPEN, node);
}

int kernel_open(struct kernel *kernel, uint64_t node,
		struct fuse_open_out *ret_open)
{
	return kernel_answer(kernel, kernel_ask_open(kernel, node), ret_open,
			     sizeof(*ret_open), NULL);
}

uint64_t kernel_ask_read(struct kernel *kernel, uint64_t node, uint64_t handle,
			 uint64_t offset, size_t size)
{
	const struct fuse_read_in in = {
		.fh = handle, .offset = offset, .size = (uint32_t)size,
	};

	return kernel_ask(kernel, FUSE_READ, node, &in, sizeof(in), NULL);
}

int kernel_read(struct kernel *kernel, uint64_t node, uint64_t handle,
		uint64_t offset, size_t size, void *out, size_t *ret_got)
{
	return kernel_answer(kernel, kernel_ask_read(kernel, node, handle,
						     offset, size),
			     out, size, ret_got);
}

static void release_any(struct kernel *kernel, uint32_t opcode, uint64_t node,
			uint64_t handle)
{
	const struct fuse_release_in in = { .fh = handle };

	assert_int_equal(kernel_answer(kernel, kernel_ask(kernel, opcode, node,
							  &in, sizeof(in),
							  NULL),
				       NULL, 0, NULL), 0);
}

void kernel_release(struct kernel *kernel, uint64_t node, uint64_t handle)
{
	release_any(kernel, FUSE_RELEASE, node, handle);
}

/* ---- folders ------------------------------------------------------------- */

uint64_t kernel_ask_opendir(struct kernel *kernel, uint64_t node)
{
	return ask_open(kernel, FUSE_OPENDIR, node);
}

int kernel_opendir(struct kernel *kernel, uint64_t node,
		   struct fuse_open_out *ret_open)
{
	return kernel_answer(kernel, kernel_ask_opendir(kernel, node),
			     ret_open, sizeof(*ret_open), NULL);
}

void kernel_releasedir(struct kernel *kernel, uint64_t node, uint64_t handle)
{
	release_any(kernel, FUSE_RELEASEDIR, node, handle);
}

/* One entry at @data; returns the bytes it takes. */
static size_t take_dirent(const unsigned char *data, size_t size, bool plus,
			  struct kernel_dirent *ret, uint64_t *ret_next)
{
	size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	struct fuse_dirent dirent;

	assert_true(size >= head);
	memset(ret, 0, sizeof(*ret));
	memcpy(&dirent, data + head - FUSE_NAME_OFFSET, FUSE_NAME_OFFSET);
	if (plus)
		memcpy(&ret->entry, data, sizeof(ret->entry));
	assert_true(dirent.namelen > 0 && dirent.namelen < 256 &&
		    dirent.namelen <= size - head);
	memcpy(ret->name, data + head, dirent.namelen);
	ret->type = dirent.type;
	ret->ino = dirent.ino;
	*ret_next = dirent.off;
	return FUSE_DIRENT_ALIGN(head + dirent.namelen);
}

int kernel_readdir(struct kernel *kernel, uint64_t node, uint64_t handle,
		   bool plus, size_t size, struct kernel_dirent *entries,
		   size_t max, size_t *ret_count)
{
	struct fuse_read_in in = { .fh = handle, .size = (uint32_t)size };
	unsigned char *buffer = malloc(size);
	size_t got, at;
	int error;

	assert_non_null(buffer);
	*ret_count = 0;
	do {
		error = kernel_answer(kernel,
				      kernel_ask(kernel, plus ?
						 FUSE_READDIRPLUS :
						 FUSE_READDIR, node, &in,
						 sizeof(in), NULL),
				      buffer, size, &got);
		for (at = 0; !error && at < got;) {
			assert_true(*ret_count < max);
			at += take_dirent(buffer + at, got - at, plus,
					  &entries[(*ret_count)++],
					  &in.offset);
		}
	} while (!error && got > 0);
	free(buffer);
	return error;
}

static int compare_dirents(const void *a, const void *b)
{
	const struct kernel_dirent *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static char *join_names(struct kernel_dirent *entries, size_t count)
{
	char *names = calloc(count + 1, 257), *end = names;
	size_t i;

	assert_non_null(names);
	qsort(entries, count, sizeof(*entries), compare_dirents);
	for (i = 0; i < count; i++)
		if (strcmp(entries[i].name, ".") != 0 &&
		    strcmp(entries[i].name, "..") != 0)
			end += sprintf(end, "%s\n", entries[i].name);
	return names;
}

int kernel_list(struct kernel *kernel, const char *path, char **ret_names)
{
	enum { MAX = 4096 };
	struct kernel_dirent *entries = calloc(MAX, sizeof(*entries));
	struct fuse_entry_out entry = { .nodeid = FUSE_ROOT_ID };
	struct fuse_open_out open = { .fh = 0 };
	size_t count;
	int error = 0;

	assert_non_null(entries);
	if (*path)
		error = kernel_walk(kernel, path, &entry);
	if (!error) {
		error = kernel_opendir(kernel, entry.nodeid, &open);
		if (!error) {
			error = kernel_readdir(kernel, entry.nodeid, open.fh,
					       false, 4096, entries, MAX,
					       &count);
			kernel_releasedir(kernel, entry.nodeid, open.fh);
		}
		if (*path)
			kernel_forget(kernel, entry.nodeid, 1);
	}
	if (!error)
		*ret_names = join_names(entries, count);
	free(entries);
	return error;
}
