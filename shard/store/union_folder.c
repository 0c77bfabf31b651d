/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/union_folder.h"

#include "shard/base/limits.h"
#include "shard/store/folder_records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* How long to wait for a rank whose last list is there. */
enum { IMPATIENT_MS = 2000 };

/* ---- asking -------------------------------------------------------------- */

/* What one rank has said; of one that does not answer, what it had. */
static int take(struct union_folder *folder, const struct union_folder *before,
		unsigned rank, int error)
{
	struct array *list = &folder->lists[rank];
	bool known = before && before->known[rank];

	switch (-error) {
	case 0:
		folder->found = true;
		folder->known[rank] = true;
		return 0;
	case ENOENT: case ENOTDIR: case ELOOP: case EXDEV:
		list->size = 0;
		folder->known[rank] = true;
		return 0;
	case ENOMEM: case ESHUTDOWN:
		return error;
	default:
		break;
	}
	list->size = 0;
	if (!known)
		return 0;
	folder->known[rank] = true;
	folder->found |= before->lists[rank].size > 0;
	return array_append(list, before->lists[rank].data,
			    before->lists[rank].size);
}

/* What rank @rank had, which does not answer: as the lowest remembers it that
 * does. */
static int recall(struct peers *peers, struct union_folder *folder, unsigned rank)
{
	struct peer_list *lists = calloc(peers->count, sizeof(*lists));
	struct array *outs = calloc(peers->count, sizeof(*outs));
	unsigned count = 0, i;
	int error = lists && outs ? 0 : -ENOMEM;

	for (i = 0; i < peers->count && !error; i++)
		if (i != peers->rank && i != rank)
			lists[count++] = (struct peer_list){
				.rank = i, .out = &outs[i],
				.timeout_ms = IMPATIENT_MS,
			};
	if (count > 0)
		peers->list(peers, rank, folder->path, lists, count);
	for (i = 0; i < count && lists[i].error; i++)
		;
	if (i < count) {
		array_finish(&folder->lists[rank]);
		folder->lists[rank] = *lists[i].out;
		*lists[i].out = (struct array){ .data = NULL };
		folder->known[rank] = true;
		folder->found |= folder->lists[rank].size > 0;
	}
	for (i = 0; outs && i < peers->count; i++)
		array_finish(&outs[i]);
	free(outs);
	free(lists);
	return error;
}

/* Ask all ranks: those elsewhere at once, those here by looking. */
static int ask(struct peers *peers, struct union_folder *folder,
	       const struct union_folder *before)
{
	struct peer_list *lists = calloc(peers->count, sizeof(*lists));
	unsigned count = 0, i;
	int error = 0;

	if (!lists)
		return -ENOMEM;
	for (i = 0; i < peers->count; i++)
		if (peers->stores[i] < 0)
			lists[count++] = (struct peer_list){
				.rank = i, .out = &folder->lists[i],
				.timeout_ms = before && before->known[i] ?
					      IMPATIENT_MS : 0,
			};
	if (count > 0)
		peers->list(peers, PEERS_OWN, folder->path, lists, count);
	for (i = 0; i < count && !error; i++)
		error = take(folder, before, lists[i].rank, lists[i].error);
	for (i = 0; i < peers->count && !error; i++)
		if (peers->stores[i] >= 0)
			error = take(folder, before, i,
				     folder_records_list(peers->stores[i],
						folder->path,
						&folder->lists[i]));
	for (i = 0; i < peers->count && !error; i++)
		if (!folder->known[i])
			error = recall(peers, folder, i);
	free(lists);
	return error;
}

/* ---- merging ------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b)
{
	const struct store_entry *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : x->owner < y->owner ? -1 : x->owner > y->owner;
}

static char *add_text(char *to, const char *text, size_t size)
{
	memcpy(to, text, size);
	to[size] = '\0';
	return to + size + 1;
}

/* All entries of all ranks, unsorted. */
static int collect(struct union_folder *folder)
{
	struct store_list *list = &folder->list;
	size_t size = 0, count = 0, position;
	struct stored stored;
	char *text;
	unsigned rank;

	for (rank = 0; rank < folder->ranks; rank++) {
		const struct array *from = &folder->lists[rank];

		for (position = 0; stored_entry_next(from->data, from->size,
						     &position, &stored);
		     count++)
			size += stored.entry.name_size +
				stored.entry.target_size + 2u;
	}
	list->entries = calloc(count + 1, sizeof(*list->entries));
	folder->replicas = calloc(count + 1, sizeof(*folder->replicas));
	list->names = text = malloc(size + 1);
	if (!list->entries || !folder->replicas || !text)
		return -ENOMEM;
	for (rank = 0; rank < folder->ranks; rank++) {
		const struct array *from = &folder->lists[rank];

		for (position = 0; stored_entry_next(from->data, from->size,
						     &position, &stored);) {
			struct store_entry *entry =
				&list->entries[list->count++];

			*entry = (struct store_entry){
				.name = text, .owner = rank, .known = true,
				.pin = stored.entry.pin,
			};
			text = add_text(text, stored.name,
					stored.entry.name_size);
			entry->target = text;
			text = add_text(text, stored.target,
					stored.entry.target_size);
		}
	}
	return 0;
}

/* The smaller, the nearer. */
static unsigned distance(const struct peers *peers, unsigned rank)
{
	return rank == peers->rank ? 0 : peers->stores[rank] >= 0 ? 1 : 2;
}

static void insert_replica(const struct peers *peers, struct replica *replicas,
			   uint32_t count, const struct store_entry *entry)
{
	const struct replica made = { entry->owner, entry->pin };
	uint32_t at = count;

	/* Of the same distance, in the order of their ranks. */
	while (at > 0 && distance(peers, replicas[at - 1].rank) >
				 distance(peers, made.rank)) {
		replicas[at] = replicas[at - 1];
		at--;
	}
	replicas[at] = made;
}

struct merge {
	struct peers *peers;
	struct comparer *comparer;
	struct union_folder *folder;
};

/* @entry has the name of @first, which is of a lower rank. */
static bool is_same(const struct merge *merge, const struct store_entry *first,
		    const struct store_entry *entry)
{
	const struct replica a = { first->owner, first->pin };
	const struct replica b = { entry->owner, entry->pin };
	char path[LIMIT_PATH_SIZE];

	return store_join(merge->folder->path, first->name, path) == 0 &&
	       comparer_is_same(merge->comparer, path, &a, &b);
}

/* What @count ranks have under one name, the lowest first; room for as many
 * @replicas. @ret may be the first of them. */
static void merge_name(const struct merge *merge, const struct store_entry *all,
		       size_t count, struct replica *replicas,
		       struct store_entry *ret)
{
	struct store_entry first = all[0];
	bool is_file = S_ISREG(first.pin.mode);
	const struct store_entry *own = NULL;
	size_t i;

	first.replicas = replicas;
	for (i = 0; i < count; i++)
		/* A folder that changes meanwhile may have a name twice. */
		if (i > 0 && all[i - 1].owner == all[i].owner)
			continue;
		else if (i > 0 && !is_same(merge, &all[0], &all[i]))
			own = all[i].owner == merge->peers->rank ? &all[i] :
								   own;
		else if (is_file)
			insert_replica(merge->peers, replicas,
				       first.replica_count++, &all[i]);
	first.has_own = is_file && own && S_ISREG(own->pin.mode);
	if (first.has_own)
		replicas[first.replica_count] = (struct replica){
			own->owner, own->pin,
		};
	*ret = first;
}

static void reduce(const struct merge *merge)
{
	struct store_list *list = &merge->folder->list;
	struct store_entry *entries = list->entries;
	size_t i, count, kept = 0;

	if (list->count > 1)
		qsort(entries, list->count, sizeof(*entries), compare_entries);
	for (i = 0; i < list->count; i += count) {
		for (count = 1; i + count < list->count &&
				strcmp(entries[i].name,
				       entries[i + count].name) == 0; count++)
			;
		merge_name(merge, &entries[i], count,
			   &merge->folder->replicas[i], &entries[kept++]);
	}
	list->count = kept;
}

/* ---- life ---------------------------------------------------------------- */

static void destroy(struct store_list *list)
{
	struct union_folder *folder = union_folder_of(list);
	unsigned i;

	for (i = 0; folder->lists && i < folder->ranks; i++)
		array_finish(&folder->lists[i]);
	free(folder->lists);
	free(folder->known);
	free(folder->replicas);
	free(folder->path);
	free(list->entries);
	free(list->names);
	free(folder);
}

static struct union_folder *make(struct peers *peers, const char *path)
{
	struct union_folder *folder = calloc(1, sizeof(*folder));

	if (!folder)
		return NULL;
	folder->list.references = 1;
	folder->list.destroy = destroy;
	folder->ranks = peers->count;
	folder->path = strdup(path);
	folder->lists = calloc(peers->count, sizeof(*folder->lists));
	folder->known = calloc(peers->count, sizeof(*folder->known));
	if (folder->path && folder->lists && folder->known)
		return folder;
	destroy(&folder->list);
	return NULL;
}

/* Merge what the ranks have said, unless that was @error. */
static int finish(const struct merge *merge, int error,
		  struct union_folder **ret_folder)
{
	if (!error)
		error = collect(merge->folder);
	if (error) {
		destroy(&merge->folder->list);
		return error;
	}
	reduce(merge);
	*ret_folder = merge->folder;
	return 0;
}

int union_folder_create(struct peers *peers, struct comparer *comparer,
			const char *path, const struct union_folder *before,
			struct union_folder **ret_folder)
{
	const struct merge merge = { peers, comparer, make(peers, path) };

	if (!merge.folder)
		return -ENOMEM;
	return finish(&merge, ask(peers, merge.folder, before), ret_folder);
}

int union_folder_create_open(struct peers *peers, struct comparer *comparer,
			     const char *path, const int *fds,
			     struct union_folder **ret_folder)
{
	const struct merge merge = { peers, comparer, make(peers, path) };
	unsigned i;
	int error = 0;

	if (!merge.folder)
		return -ENOMEM;
	for (i = 0; i < peers->count && !error; i++)
		if (fds[i] >= 0)
			error = take(merge.folder, NULL, i,
				     folder_records_list(fds[i], "",
						&merge.folder->lists[i]));
	return finish(&merge, error, ret_folder);
}
