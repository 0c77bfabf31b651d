/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/store.h"

#include "shard/base/reference.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int store_join(const char *path, const char *name,
	       char ret_path[LIMIT_PATH_SIZE])
{
	int size = snprintf(ret_path, LIMIT_PATH_SIZE, "%s%s%s", path,
			    *path ? "/" : "", name);

	return size < LIMIT_PATH_SIZE ? 0 : -ENAMETOOLONG;
}

int store_path_whole(struct store_path path, char ret_path[LIMIT_PATH_SIZE])
{
	const char *start = path.at ? path.at->path : "";

	return *path.text ? store_join(start, path.text, ret_path) :
			    store_join("", start, ret_path);
}

/* ---- folders ------------------------------------------------------------- */

struct store_list *store_list_get(struct store_list *list)
{
	atomic_fetch_add(&list->references, 1);
	return list;
}

void store_list_put(struct store_list *list)
{
	if (list && reference_drop(&list->references))
		list->destroy(list);
}

const struct store_entry *store_list_find(const struct store_list *list,
					  const char *name)
{
	size_t low = 0, high = list->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(list->entries[middle].name, name);

		if (order == 0)
			return &list->entries[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

struct store_folder *store_folder_create(struct store *store, const char *path)
{
	struct store_folder *folder = calloc(1, sizeof(*folder));
	unsigned i;

	if (!folder)
		return NULL;
	folder->references = 1;
	folder->store = store;
	folder->path = strdup(path);
	folder->fds = malloc(store->ranks * sizeof(*folder->fds));
	for (i = 0; folder->fds && i < store->ranks; i++)
		folder->fds[i] = -1;
	if (folder->path && folder->fds)
		return folder;
	store_folder_put(folder);
	return NULL;
}

struct store_folder *store_folder_get(struct store_folder *folder)
{
	atomic_fetch_add(&folder->references, 1);
	return folder;
}

void store_folder_put(struct store_folder *folder)
{
	unsigned i;

	if (!folder || !reference_drop(&folder->references))
		return;
	for (i = 0; folder->fds && i < folder->store->ranks; i++)
		if (folder->fds[i] >= 0)
			close(folder->fds[i]);
	free(folder->fds);
	free(folder->path);
	free(folder);
}

bool store_folder_is(const struct store_folder *folder, unsigned owner,
		     const struct stat *status)
{
	struct stat now;

	return folder->fds[owner] < 0 || fstat(folder->fds[owner], &now) < 0 ||
	       (now.st_dev == status->st_dev && now.st_ino == status->st_ino);
}

/* ---- files --------------------------------------------------------------- */

/* Full or an error, in parts that a reply holds. */
static int read_input(const struct input *input, void *buffer, size_t size,
		      uint64_t offset)
{
	struct stored_file *file = (struct stored_file *)(uintptr_t)input->data;
	struct reply *reply = reply_create();
	size_t done = 0;
	int error = reply ? 0 : -ENOMEM;

	while (!error && done < size) {
		size_t part = size - done < LIMIT_READ_SIZE ? size - done :
							      LIMIT_READ_SIZE;

		error = reply_begin(reply, (char *)buffer + done, part);
		if (!error)
			error = file->read(file, input->base + offset + done,
					   true, reply);
		/* It is shorter than its pin says. */
		if (!error && reply->size != part)
			error = -EIO;
		done += part;
	}
	reply_destroy(reply);
	if (error && input->failed)
		*input->failed = error;
	return error;
}

struct input stored_file_input(struct stored_file *file, int *failed)
{
	return (struct input){
		.read = read_input, .size = file->pin.size, .fd = -1,
		.failed = failed, .data = file,
	};
}
