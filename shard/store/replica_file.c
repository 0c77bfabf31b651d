/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/store/replica_file.h"

#include "shard/store/local_file.h"
#include "shard/store/remote_file.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct copy {
	struct replica replica;		/* const */
	struct stored_file *file;	/* owned; NULL: not open yet; once it is
					 * that stays; written under lock,
					 * before `now` says that it is read */
};

struct replica_file {
	struct stored_file base;	/* first: passed as this */
	struct peers *peers;		/* borrowed; const */
	char *path;			/* owned; const */
	pthread_mutex_t lock;
	_Atomic uint32_t now;		/* the copy that is read from */
	uint32_t count;			/* const */
	struct copy copies[];
};

/* ---- opening a copy ------------------------------------------------------ */

static int open_local(const struct replica_opening *opening,
		      const struct replica *replica,
		      struct stored_file **ret_file)
{
	int store = opening->peers->stores[replica->rank];
	int in = opening->folder ? opening->folder->fds[replica->rank] : -1;
	struct local_opened opened = {
		.rank = replica->rank, .folder = store, .path = opening->path,
	};
	struct pin pin;
	int error = io_open(in >= 0 ? in : store,
			    in >= 0 ? opening->name : opening->path,
			    &opened.fd, &opened.status);

	if (error)
		return error;
	pin = pin_from_stat(&opened.status);
	if (pin_same_bytes(&replica->pin, &pin))
		return local_file_create(&opened, ret_file);
	close(opened.fd);
	return -ESTALE;
}

static int open_copy(const struct replica_opening *opening,
		     const struct replica *replica,
		     struct stored_file **ret_file)
{
	return opening->peers->stores[replica->rank] >= 0 ?
	       open_local(opening, replica, ret_file) :
	       remote_file_open(opening->peers, replica->rank, opening->path,
				&replica->pin, ret_file);
}

/* ---- going on ------------------------------------------------------------ */

/* May another copy have what this one does not give? */
static bool is_lost(int error)
{
	return error == -EIO || error == -ESTALE;
}

/* Copy @at has failed: is there another one that is open? */
static bool go_on(struct replica_file *r, uint32_t at)
{
	const struct replica_opening opening = {
		.peers = r->peers, .path = r->path,
	};
	uint32_t next = at, i;
	bool found = false;

	pthread_mutex_lock(&r->lock);
	if (atomic_load(&r->now) != at)
		found = true;
	for (i = 1; i < r->count && !found; i++) {
		next = (at + i) % r->count;
		found = r->copies[next].file ||
			open_copy(&opening, &r->copies[next].replica,
				  &r->copies[next].file) == 0;
		if (found)
			atomic_store(&r->now, next);
	}
	pthread_mutex_unlock(&r->lock);
	return found;
}

/* Copy @at has said @error: is there one to ask that was not, of @tries? */
static bool has_next(struct replica_file *r, int error, uint32_t at,
		     uint32_t *tries)
{
	return is_lost(error) && ++*tries < r->count && go_on(r, at);
}

static int read_range(struct stored_file *stored, uint64_t offset, bool exact,
		      struct reply *reply)
{
	struct replica_file *r = (struct replica_file *)stored;
	uint32_t tries = 0, at;
	int error;

	do {
		at = atomic_load(&r->now);
		error = r->copies[at].file->read(r->copies[at].file, offset,
						 exact, reply);
		if (is_lost(error) && reply->nowait)
			return -EAGAIN;
	} while (has_next(r, error, at, &tries));
	return error;
}

/* Whichever copy it is, its bytes are the owner's: so are its attributes. */
static int status_now(struct stored_file *stored, bool exact,
		      struct stat *ret_status)
{
	struct replica_file *r = (struct replica_file *)stored;
	uint32_t tries = 0, at;
	int error;

	do {
		at = atomic_load(&r->now);
		error = r->copies[at].file->status(r->copies[at].file, exact,
						   ret_status);
	} while (has_next(r, error, at, &tries));
	if (!error && exact)
		pin_status(&stored->pin, ret_status);
	return error;
}

/* ---- life ---------------------------------------------------------------- */

static void close_file(struct stored_file *stored)
{
	struct replica_file *r = (struct replica_file *)stored;
	uint32_t i;

	for (i = 0; i < r->count; i++)
		if (r->copies[i].file)
			r->copies[i].file->close(r->copies[i].file);
	pthread_mutex_destroy(&r->lock);
	free(r->path);
	free(r);
}

static struct replica_file *make(const struct replica_opening *opening)
{
	struct replica_file *r = calloc(1, sizeof(*r) +
					opening->count * sizeof(r->copies[0]));
	uint32_t i;

	if (!r)
		return NULL;
	r->path = strdup(opening->path);
	if (!r->path) {
		free(r);
		return NULL;
	}
	r->base = (struct stored_file){
		.pin = opening->pin, .read = read_range, .status = status_now,
		.close = close_file,
	};
	r->peers = opening->peers;
	r->count = opening->count;
	for (i = 0; i < r->count; i++)
		r->copies[i].replica = opening->replicas[i];
	pthread_mutex_init(&r->lock, NULL);
	return r;
}

int replica_file_open(const struct replica_opening *opening,
		      struct stored_file **ret_file)
{
	struct replica_file *r;
	uint32_t i = 0;
	int error, first;

	if (opening->count == 1)
		return open_copy(opening, &opening->replicas[0], ret_file);
	r = make(opening);
	if (!r)
		return -ENOMEM;
	first = error = open_copy(opening, &opening->replicas[0],
				  &r->copies[0].file);
	while (error && ++i < r->count)
		error = open_copy(opening, &opening->replicas[i],
				  &r->copies[i].file);
	if (error) {
		close_file(&r->base);
		return first;
	}
	atomic_store(&r->now, i);
	r->base.rank = opening->replicas[i].rank;
	*ret_file = &r->base;
	return 0;
}
