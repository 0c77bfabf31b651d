/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/union.h"

#include "shard/base/limits.h"
#include "shard/store/comparer.h"
#include "shard/store/folder_store.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How old a folder may be; how long to wait for a rank whose last list is
 * there; folders to keep. */
enum { FRESH_MS = 1000, IMPATIENT_MS = 2000, CACHE_MAX = 4096 };

/* The last of a path. Never freed before the merger: few, and shared. */
struct cached {
	char *path;		/* owned */
	pthread_mutex_t lock;	/* held while the ranks are asked */
	struct merged *merged;	/* one reference; guarded by the merger's
				 * lock */
};

struct merger {
	struct peers *peers;	/* borrowed; const */
	struct comparer comparer;
	pthread_mutex_t lock;
	void *cache;		/* a tree of search.h; guarded by lock */
	unsigned cached_count;	/* likewise */
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- merging ------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b)
{
	const struct merged_entry *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* All entries of all ranks, unsorted. */
static int collect(struct merged *merged)
{
	size_t size = 0, count = 0, position;
	struct stored stored;
	char *text;
	unsigned rank;

	for (rank = 0; rank < merged->ranks; rank++) {
		const struct array *list = &merged->lists[rank];

		for (position = 0; stored_entry_next(list->data, list->size,
						     &position, &stored);
		     count++)
			size += stored.entry.name_size +
				stored.entry.target_size + 2u;
	}
	merged->entries = calloc(count + 1, sizeof(*merged->entries));
	merged->names = text = malloc(size + 1);
	if (!merged->entries || !text)
		return -ENOMEM;
	for (rank = 0; rank < merged->ranks; rank++) {
		const struct array *list = &merged->lists[rank];

		for (position = 0; stored_entry_next(list->data, list->size,
						     &position, &stored);) {
			struct merged_entry *entry =
				&merged->entries[merged->count++];

			*entry = (struct merged_entry){
				.name = text, .rank = rank, .near = rank,
				.stored = stored.entry,
				.near_pin = stored.entry.pin,
				.target = text + stored.entry.name_size + 1,
				.target_size = stored.entry.target_size,
			};
			memcpy(text, stored.name, stored.entry.name_size);
			text += stored.entry.name_size;
			*text++ = '\0';
			memcpy(text, stored.target, stored.entry.target_size);
			text += stored.entry.target_size;
			*text++ = '\0';
		}
	}
	return 0;
}

/* Of one name, the first is the lowest rank's. */
static void reduce(struct merger *merger, struct merged *merged)
{
	const int *stores = merger->peers->stores;
	size_t i, kept = 0;

	if (merged->count > 1)
		qsort(merged->entries, merged->count, sizeof(*merged->entries),
		      compare_entries);
	for (i = 0; i < merged->count; i++) {
		const struct merged_entry *entry = &merged->entries[i];
		struct merged_entry *last =
			kept ? &merged->entries[kept - 1] : NULL;

		if (!last || strcmp(last->name, entry->name) != 0) {
			merged->entries[kept++] = *entry;
			continue;
		}
		if (!comparer_is_same(&merger->comparer, merged->path, last,
				      entry) ||
		    !S_ISREG(last->stored.pin.mode))
			continue;
		if (entry->rank == merger->peers->rank ||
		    (stores[last->near] < 0 && stores[entry->rank] >= 0)) {
			last->near = entry->rank;
			last->near_pin = entry->stored.pin;
		}
	}
	merged->count = kept;
}

/* ---- asking -------------------------------------------------------------- */

/* What one rank has said; of one that does not answer, what it had. */
static int take(struct merged *merged, const struct merged *before,
		unsigned rank, int error)
{
	struct array *list = &merged->lists[rank];
	bool known = before && before->known[rank];

	switch (-error) {
	case 0:
		merged->found = true;
		merged->known[rank] = true;
		return 0;
	case ENOENT: case ENOTDIR: case ELOOP: case EXDEV:
		list->size = 0;
		merged->known[rank] = true;
		return 0;
	case ENOMEM: case ESHUTDOWN:
		return error;
	default:
		break;
	}
	list->size = 0;
	if (!known)
		return 0;
	merged->known[rank] = true;
	merged->found |= before->lists[rank].size > 0;
	return array_append(list, before->lists[rank].data,
			    before->lists[rank].size);
}

/* What rank @rank had, which does not answer: as the lowest remembers it that
 * does. */
static int recall(struct merger *merger, struct merged *merged, unsigned rank)
{
	struct peers *peers = merger->peers;
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
		peers->list(peers, rank, merged->path, lists, count);
	for (i = 0; i < count && lists[i].error; i++)
		;
	if (i < count) {
		array_finish(&merged->lists[rank]);
		merged->lists[rank] = *lists[i].out;
		*lists[i].out = (struct array){ .data = NULL };
		merged->known[rank] = true;
		merged->found |= merged->lists[rank].size > 0;
	}
	for (i = 0; outs && i < peers->count; i++)
		array_finish(&outs[i]);
	free(outs);
	free(lists);
	return error;
}

/* Ask all ranks: those elsewhere at once, those here by looking. */
static int ask(struct merger *merger, struct merged *merged,
	       const struct merged *before)
{
	struct peers *peers = merger->peers;
	struct peer_list *lists = calloc(peers->count, sizeof(*lists));
	unsigned count = 0, i;
	int error = 0;

	if (!lists)
		return -ENOMEM;
	for (i = 0; i < peers->count; i++)
		if (peers->stores[i] < 0)
			lists[count++] = (struct peer_list){
				.rank = i, .out = &merged->lists[i],
				.timeout_ms = before && before->known[i] ?
					      IMPATIENT_MS : 0,
			};
	if (count > 0)
		peers->list(peers, PEERS_OWN, merged->path, lists, count);
	for (i = 0; i < count && !error; i++)
		error = take(merged, before, lists[i].rank, lists[i].error);
	for (i = 0; i < peers->count && !error; i++)
		if (peers->stores[i] >= 0)
			error = take(merged, before, i,
				     store_list(peers->stores[i],
						merged->path,
						&merged->lists[i]));
	for (i = 0; i < peers->count && !error; i++)
		if (!merged->known[i])
			error = recall(merger, merged, i);
	free(lists);
	return error;
}

static void destroy(struct merged *merged)
{
	unsigned i;

	for (i = 0; merged->lists && i < merged->ranks; i++)
		array_finish(&merged->lists[i]);
	free(merged->lists);
	free(merged->known);
	free(merged->entries);
	free(merged->names);
	free(merged->path);
	free(merged);
}

static int make(struct merger *merger, const char *path,
		const struct merged *before, struct merged **ret_merged)
{
	unsigned ranks = merger->peers->count;
	struct merged *merged = calloc(1, sizeof(*merged));
	int error = -ENOMEM;

	if (!merged)
		return -ENOMEM;
	merged->references = 1;
	merged->ranks = ranks;
	merged->path = strdup(path);
	merged->lists = calloc(ranks, sizeof(*merged->lists));
	merged->known = calloc(ranks, sizeof(*merged->known));
	if (merged->path && merged->lists && merged->known)
		error = 0;
	if (!error)
		error = ask(merger, merged, before);
	if (!error)
		error = collect(merged);
	if (error) {
		destroy(merged);
		return error;
	}
	reduce(merger, merged);
	merged->made_ms = now_ms();
	*ret_merged = merged;
	return 0;
}

void merged_put(struct merged *merged)
{
	if (merged && atomic_fetch_sub(&merged->references, 1) == 1)
		destroy(merged);
}

/* ---- the cache ----------------------------------------------------------- */

static int compare_cached(const void *a, const void *b)
{
	const struct cached *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static struct cached *get_cached_locked(struct merger *merger,
					const char *path)
{
	struct cached key = { .path = (char *)path }, **found, *cached;

	found = tfind(&key, &merger->cache, compare_cached);
	if (found)
		return *found;
	if (merger->cached_count == CACHE_MAX)
		return NULL;
	cached = calloc(1, sizeof(*cached));
	if (!cached)
		return NULL;
	cached->path = strdup(path);
	if (!cached->path ||
	    !tsearch(cached, &merger->cache, compare_cached)) {
		free(cached->path);
		free(cached);
		return NULL;
	}
	pthread_mutex_init(&cached->lock, NULL);
	merger->cached_count++;
	return cached;
}

/* With one more reference; NULL: there is none yet. */
static struct merged *get_merged_locked(const struct cached *cached)
{
	if (cached->merged)
		atomic_fetch_add(&cached->merged->references, 1);
	return cached->merged;
}

static struct merged *get_merged(struct merger *merger, struct cached *cached)
{
	struct merged *merged;

	pthread_mutex_lock(&merger->lock);
	merged = get_merged_locked(cached);
	pthread_mutex_unlock(&merger->lock);
	return merged;
}

int merger_recall(struct merger *merger, const char *path, unsigned rank,
		  struct array *out)
{
	struct cached key = { .path = (char *)path }, **found;
	struct merged *merged = NULL;
	int error = -ENODATA;

	pthread_mutex_lock(&merger->lock);
	found = tfind(&key, &merger->cache, compare_cached);
	if (found)
		merged = get_merged_locked(*found);
	pthread_mutex_unlock(&merger->lock);
	if (merged && rank < merged->ranks && merged->known[rank])
		error = array_append(out, merged->lists[rank].data,
				     merged->lists[rank].size);
	merged_put(merged);
	return error;
}

static int refresh_locked(struct merger *merger, struct cached *cached,
			  const struct merged *before,
			  struct merged **ret_merged)
{
	struct merged *merged, *old;
	int error = make(merger, cached->path, before, &merged);

	if (error)
		return error;
	atomic_fetch_add(&merged->references, 1);
	pthread_mutex_lock(&merger->lock);
	old = cached->merged;
	cached->merged = merged;
	pthread_mutex_unlock(&merger->lock);
	merged_put(old);
	*ret_merged = merged;
	return 0;
}

int merger_get(struct merger *merger, const char *path, bool fresh,
	       struct merged **ret_merged)
{
	uint64_t asked_ms = now_ms();
	struct cached *cached;
	struct merged *merged;
	int error = merger->peers->wait_ready(merger->peers);

	if (error)
		return error;
	pthread_mutex_lock(&merger->lock);
	cached = get_cached_locked(merger, path);
	pthread_mutex_unlock(&merger->lock);
	if (!cached)
		return make(merger, path, NULL, ret_merged);
	pthread_mutex_lock(&cached->lock);
	merged = get_merged(merger, cached);
	/* Whoever waited for the lock is served by who had it. */
	if (merged && (merged->made_ms > asked_ms ||
		       (!fresh && asked_ms - merged->made_ms < FRESH_MS))) {
		*ret_merged = merged;
	} else {
		error = refresh_locked(merger, cached, merged, ret_merged);
		merged_put(merged);
	}
	pthread_mutex_unlock(&cached->lock);
	return error;
}

struct merger *merger_create(struct peers *peers,
			     void (*say)(void *context, const char *line),
			     void *context)
{
	struct merger *merger = calloc(1, sizeof(*merger));

	if (!merger)
		return NULL;
	merger->peers = peers;
	comparer_init(&merger->comparer, peers, say, context);
	pthread_mutex_init(&merger->lock, NULL);
	return merger;
}

static void free_cached(void *data)
{
	struct cached *cached = data;

	merged_put(cached->merged);
	pthread_mutex_destroy(&cached->lock);
	free(cached->path);
	free(cached);
}

void merger_destroy(struct merger *merger)
{
	if (!merger)
		return;
	tdestroy(merger->cache, free_cached);
	comparer_finish(&merger->comparer);
	pthread_mutex_destroy(&merger->lock);
	free(merger);
}

/* ---- finding ------------------------------------------------------------- */

const struct merged_entry *merged_find(const struct merged *merged,
				       const char *name)
{
	size_t low = 0, high = merged->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(merged->entries[middle].name, name);

		if (order == 0)
			return &merged->entries[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

int merger_find(struct merger *merger, const char *path,
		struct merged **merged, const struct merged_entry **ret_entry)
{
	const char *slash = strrchr(path, '/');
	size_t size = slash ? (size_t)(slash - path) : 0;
	char folder[LIMIT_PATH_SIZE];
	int error = 0;

	if (size >= sizeof(folder))
		return -ENAMETOOLONG;
	memcpy(folder, path, size);
	folder[size] = '\0';
	if (*merged && strcmp((*merged)->path, folder) != 0) {
		merged_put(*merged);
		*merged = NULL;
	}
	if (!*merged)
		error = merger_get(merger, folder, false, merged);
	if (error)
		return error;
	*ret_entry = merged_find(*merged, slash ? slash + 1 : path);
	return *ret_entry ? 0 : -ENOENT;
}
