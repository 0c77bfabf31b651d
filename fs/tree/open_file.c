/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/open_file.h"

#include "shard/base/reference.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void open_file_init(struct open_file *file, struct open_table *table,
		    const struct open_file_ops *ops, uint64_t number)
{
	file->ops = ops;
	file->table = table;
	file->number = number;
	file->references = 1;
}

void open_file_enlist_locked(struct open_file *file, struct open_files *beside)
{
	LIST_INSERT_HEAD(&file->table->files, file, all);
	file->listed = beside;
	if (beside)
		LIST_INSERT_HEAD(beside, file, beside);
}

void open_file_enlist(struct open_file *file, struct open_files *beside)
{
	pthread_mutex_lock(file->table->lock);
	open_file_enlist_locked(file, beside);
	pthread_mutex_unlock(file->table->lock);
}

void open_file_hold(struct open_file *file)
{
	atomic_fetch_add(&file->references, 1);
}

void open_file_put(struct open_file *file)
{
	unsigned references = atomic_load(&file->references);
	struct open_table *table = file->table;
	bool last;

	while (references > 1)
		if (atomic_compare_exchange_weak(&file->references,
						 &references, references - 1))
			return;
	/* The last one under the lock: nobody may find it and hold it again. */
	pthread_mutex_lock(table->lock);
	last = reference_drop(&file->references);
	if (last) {
		LIST_REMOVE(file, all);
		if (file->listed)
			LIST_REMOVE(file, beside);
	}
	pthread_mutex_unlock(table->lock);
	if (last)
		file->ops->close(file);
}

struct open_file *open_file_first(struct open_table *table,
				  const struct open_files *beside)
{
	struct open_file *file;

	pthread_mutex_lock(table->lock);
	file = LIST_FIRST(beside);
	if (file)
		open_file_hold(file);
	pthread_mutex_unlock(table->lock);
	return file;
}

unsigned open_file_numbers(struct open_table *table,
			   const struct open_files *beside, uint64_t after,
			   uint64_t *ret_numbers, unsigned count)
{
	const struct open_file *file;
	unsigned found = 0, i;

	/* Insertion into a short sorted list: files open at once are few. */
	pthread_mutex_lock(table->lock);
	LIST_FOREACH(file, beside, beside) {
		if (file->number <= after)
			continue;
		for (i = 0; i < found && ret_numbers[i] < file->number; i++)
			;
		if (i == count || (i < found && ret_numbers[i] == file->number))
			continue;
		if (found < count)
			found++;
		memmove(&ret_numbers[i + 1], &ret_numbers[i],
			(found - 1 - i) * sizeof(*ret_numbers));
		ret_numbers[i] = file->number;
	}
	pthread_mutex_unlock(table->lock);
	return found;
}

int open_file_read(struct open_file *file, uint64_t size, uint64_t offset,
		   struct reply *reply)
{
	int error = reply_begin(reply, NULL, size < LIMIT_READ_SIZE ?
					     size : LIMIT_READ_SIZE);

	return error ? error : file->ops->read(file, offset, reply);
}

/* ---- texts --------------------------------------------------------------- */

struct open_text {
	struct open_file base;		/* first: passed as this */
	struct array text;		/* owned; const */
};

void open_file_lend(const struct array *text, uint64_t offset,
		    struct reply *reply)
{
	uint64_t left = offset < text->size ? text->size - offset : 0;

	if (reply->size > left)
		reply->size = left;
	if (reply->size > 0)
		reply_lend(reply, text->data + offset, NULL, NULL, NULL);
}

static int read_text(struct open_file *file, uint64_t offset,
		     struct reply *reply)
{
	open_file_lend(&((struct open_text *)file)->text, offset, reply);
	return 0;
}

static void describe_text(const struct open_file *file, char *text, size_t size)
{
	snprintf(text, size, "inode %llu", (unsigned long long)file->number);
}

static void close_text(struct open_file *file)
{
	array_finish(&((struct open_text *)file)->text);
	free(file);
}

static const struct open_file_ops text_ops = {
	.read = read_text, .describe = describe_text, .close = close_text,
};

int open_file_text(struct open_table *table, uint64_t number,
		   struct array *text, struct open_file **ret_file)
{
	struct open_text *made = calloc(1, sizeof(*made));

	if (!made) {
		array_finish(text);
		return -ENOMEM;
	}
	made->text = *text;
	*text = (struct array){ .data = NULL };
	made->base.direct = true;
	open_file_init(&made->base, table, &text_ops, number);
	open_file_enlist(&made->base, NULL);
	*ret_file = &made->base;
	return 0;
}
