/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/open_folder.h"

#include "shard/base/reference.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void open_folder_init(struct open_folder *folder, struct open_table *table,
		      const struct open_folder_ops *ops)
{
	folder->ops = ops;
	folder->table = table;
	folder->references = 1;
	pthread_mutex_lock(table->lock);
	LIST_INSERT_HEAD(&table->folders, folder, all);
	pthread_mutex_unlock(table->lock);
}

void open_folder_hold(struct open_folder *folder)
{
	atomic_fetch_add(&folder->references, 1);
}

void open_folder_put(struct open_folder *folder)
{
	if (!reference_drop(&folder->references))
		return;
	pthread_mutex_lock(folder->table->lock);
	LIST_REMOVE(folder, all);
	pthread_mutex_unlock(folder->table->lock);
	folder->ops->close(folder);
}

/* ---- names that were read ------------------------------------------------- */

struct name_entry {
	uint64_t number;
	size_t name;		/* offset in the names */
	mode_t type;
};

struct open_names {
	struct open_folder base;	/* first: passed as this */
	struct name_list list;		/* owned; const, as is all */
	void (*done)(struct namespace *ns, void *context);
	void *context;
};

static const struct name_entry *entries_of(const struct name_list *list)
{
	return (const void *)list->entries.data;
}

static size_t count_of(const struct name_list *list)
{
	return list->entries.size / sizeof(struct name_entry);
}

int name_list_add(struct name_list *list, const char *name, mode_t type,
		  uint64_t number)
{
	const struct name_entry entry = { number, list->names.size, type };
	int error = array_append(&list->names, name, strlen(name) + 1);

	return error ? error : array_append(&list->entries, &entry,
					    sizeof(entry));
}

bool name_list_has(const struct name_list *list, const char *name)
{
	const struct name_entry *entries = entries_of(list);
	size_t i;

	for (i = 0; i < count_of(list); i++)
		if (strcmp((const char *)list->names.data + entries[i].name,
			   name) == 0)
			return true;
	return false;
}

void name_list_finish(struct name_list *list)
{
	array_finish(&list->entries);
	array_finish(&list->names);
}

static int next_name(struct open_folder *folder, uint64_t position, bool nowait,
		     struct listed *ret_listed)
{
	const struct name_list *list = &((struct open_names *)folder)->list;
	const struct name_entry *entry = entries_of(list) + position;

	(void)nowait;
	if (position >= count_of(list))
		return -ENOENT;
	snprintf(ret_listed->name, sizeof(ret_listed->name), "%s",
		 (const char *)list->names.data + entry->name);
	ret_listed->number = entry->number;
	ret_listed->type = entry->type;
	ret_listed->has_status = false;
	ret_listed->next = position + 1;
	return 0;
}

static void close_names(struct open_folder *folder)
{
	struct open_names *names = (struct open_names *)folder;

	if (names->done)
		names->done(folder->table->ns, names->context);
	name_list_finish(&names->list);
	free(names);
}

static const struct open_folder_ops names_ops = {
	.next = next_name, .close = close_names,
};

int open_folder_names(struct open_table *table, struct name_list *list,
		      void (*done)(struct namespace *ns, void *context),
		      void *context, struct open_folder **ret_folder)
{
	struct open_names *names = calloc(1, sizeof(*names));

	if (!names) {
		name_list_finish(list);
		if (done)
			done(table->ns, context);
		return -ENOMEM;
	}
	names->list = *list;
	*list = (struct name_list){ .names.size = 0 };
	names->done = done;
	names->context = context;
	open_folder_init(&names->base, table, &names_ops);
	*ret_folder = &names->base;
	return 0;
}
