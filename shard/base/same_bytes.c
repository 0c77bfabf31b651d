/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/same_bytes.h"

#include "shard/base/clock.h"
#include "shard/base/io.h"

#include <errno.h>
#include <sched.h>

enum { PATIENCE_NS = 20 * 1000 * 1000 };

/* Does the name lead to something else than @pin now? */
static bool is_renamed(const struct same_bytes_name *name, const struct pin *pin)
{
	struct stat status;
	struct pin found;

	if (io_stat(name->folder, name->path, &status))
		return true;
	found = pin_from_stat(&status);
	return !pin_same_file(&found, pin);
}

/* A later ctime, all else being equal, is one of other bytes, unless it is one
 * of another name. */
static bool is_explained(const struct pin *before, const struct pin *now,
			 const struct same_bytes_name *name)
{
	struct pin later = *now;

	if (pin_same_bytes(before, now))
		return true;
	later.ctime = before->ctime;
	return pin_equal(before, &later) && is_renamed(name, now);
}

static int refuse(struct same_bytes *bytes)
{
	atomic_store(&bytes->changed, true);
	return -ESTALE;
}

static int look(int fd, struct pin *ret_pin)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return -errno;
	*ret_pin = pin_from_stat(&status);
	return 0;
}

int same_bytes_check_locked(struct same_bytes *bytes, int fd,
			    const struct same_bytes_name *name)
{
	const struct pin *before = atomic_load(&bytes->moved) ?
				   &bytes->later : &bytes->pin;
	struct pin now;
	int error = look(fd, &now);
	uint64_t began;

	if (error)
		return error;
	if (pin_equal(before, &now))
		return 0;
	/* A look may fall between a new ctime and the count of links that goes
	 * with it: whoever makes the link may have to wait for a processor. */
	for (began = clock_ns(); !is_explained(before, &now, name);) {
		if (clock_ns() - began > PATIENCE_NS)
			return refuse(bytes);
		sched_yield();
		error = look(fd, &now);
		if (error)
			return error;
	}
	bytes->later = now;
	atomic_store(&bytes->moved, true);
	return 0;
}

int same_bytes_check(struct same_bytes *bytes, pthread_mutex_t *lock, int fd,
		     const struct same_bytes_name *name)
{
	struct pin now;
	int error;

	if (atomic_load(&bytes->changed))
		return -ESTALE;
	if (!atomic_load(&bytes->moved)) {
		error = look(fd, &now);
		if (error || pin_equal(&bytes->pin, &now))
			return error;
	}
	/* Another thread may have seen a later state than this one: again. */
	pthread_mutex_lock(lock);
	error = same_bytes_check_locked(bytes, fd, name);
	pthread_mutex_unlock(lock);
	return error;
}
