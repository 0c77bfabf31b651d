/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/comparer.h"

#include "shard/base/hash.h"
#include "shard/base/limits.h"
#include "shard/store/folder_records.h"

#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Two files that were compared. */
struct verdict {
	uint64_t key;
	bool same;
};

void comparer_init(struct comparer *comparer, struct peers *peers,
		   void (*say)(void *context, const char *line), void *context)
{
	*comparer = (struct comparer){
		.peers = peers, .say = say, .context = context,
	};
	pthread_mutex_init(&comparer->lock, NULL);
}

void comparer_finish(struct comparer *comparer)
{
	tdestroy(comparer->verdicts, free);
	pthread_mutex_destroy(&comparer->lock);
}

static int compare_verdicts(const void *a, const void *b)
{
	const struct verdict *x = a, *y = b;

	return x->key < y->key ? -1 : x->key > y->key;
}

static int digest(struct comparer *comparer, unsigned rank,
		  const struct file_range *range, uint64_t hash[2])
{
	struct peers *peers = comparer->peers;
	struct stat status;
	struct pin pin;
	int fd, error;

	if (peers->stores[rank] < 0)
		return peers->digest(peers, rank, range, hash);
	error = folder_records_open(peers->stores[rank], range->path, &fd, &status);
	if (error)
		return error;
	pin = pin_from_stat(&status);
	error = pin_equal(&pin, &range->pin) ?
		folder_records_digest(fd, range->pin.size, hash) : -ESTALE;
	close(fd);
	return error;
}

/* 0, or -errno when a rank does not say what it has. */
static int same_content(struct comparer *comparer, const char *path,
			const struct replica *a, const struct replica *b,
			bool *ret_same)
{
	const struct pin *p = &a->pin, *q = &b->pin;
	struct file_range range = { .path = path, .exact = true };
	uint64_t x[2], y[2];
	int error;

	/* One file of a file system that both have. */
	*ret_same = p->size == q->size && p->inode == q->inode &&
		    p->mtime == q->mtime && p->ctime == q->ctime;
	if (*ret_same || p->size != q->size || p->size > LIMIT_COMPARE_SIZE)
		return 0;
	range.pin = *p;
	error = digest(comparer, a->rank, &range, x);
	range.pin = *q;
	if (!error)
		error = digest(comparer, b->rank, &range, y);
	*ret_same = !error && x[0] == y[0] && x[1] == y[1];
	return error;
}

/* May it be known at the next look? Else it is as if they differed. */
static bool is_passing(int error)
{
	return error == -EIO || error == -ESTALE || error == -ENOMEM ||
	       error == -ESHUTDOWN;
}

static void say_conflict(struct comparer *comparer, const char *path,
			 const struct replica *a, const struct replica *b)
{
	bool large = S_ISREG(a->pin.mode) && S_ISREG(b->pin.mode) &&
		     a->pin.size == b->pin.size &&
		     a->pin.size > LIMIT_COMPARE_SIZE;
	char line[LIMIT_PATH_SIZE + 128];

	if (!comparer->say)
		return;
	snprintf(line, sizeof(line), large ?
		 "%s: rank %u and rank %u have it, too large to be compared: that of rank %u is used" :
		 "%s: differs between rank %u and rank %u: that of rank %u is used",
		 path, a->rank, b->rank, a->rank);
	comparer->say(comparer->context, line);
}

/* What is known of the two; false: nothing yet. */
static bool recall(struct comparer *comparer, struct verdict *verdict)
{
	struct verdict **found;

	pthread_mutex_lock(&comparer->lock);
	found = tfind(verdict, &comparer->verdicts, compare_verdicts);
	if (found)
		*verdict = **found;
	pthread_mutex_unlock(&comparer->lock);
	return found;
}

/* Without memory it is found out again. */
static void remember(struct comparer *comparer, const struct verdict *verdict)
{
	struct verdict *made = malloc(sizeof(*made)), **found;

	if (!made)
		return;
	*made = *verdict;
	pthread_mutex_lock(&comparer->lock);
	found = tsearch(made, &comparer->verdicts, compare_verdicts);
	if (!found || *found != made)
		free(made);
	pthread_mutex_unlock(&comparer->lock);
}

bool comparer_is_same(struct comparer *comparer, const char *path,
		      const struct replica *a, const struct replica *b)
{
	bool files = S_ISREG(a->pin.mode) && S_ISREG(b->pin.mode);
	struct verdict verdict = { .same = false };

	if (!S_ISREG(a->pin.mode) && !S_ISREG(b->pin.mode) &&
	    (a->pin.mode & S_IFMT) == (b->pin.mode & S_IFMT))
		return true;
	verdict.key = hash_64(path, strlen(path), a->rank);
	verdict.key = hash_64(&a->pin, sizeof(a->pin), verdict.key + b->rank);
	verdict.key = hash_64(&b->pin, sizeof(b->pin), verdict.key);
	if (recall(comparer, &verdict))
		return verdict.same;
	if (files &&
	    is_passing(same_content(comparer, path, a, b, &verdict.same)))
		return false;
	if (!verdict.same)
		say_conflict(comparer, path, a, b);
	remember(comparer, &verdict);
	return verdict.same;
}
