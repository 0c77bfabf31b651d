/* SPDX-License-Identifier: Apache-2.0 */
#include "support/homes.h"

#include "support/test.h"

#include "shard/store/folder_records.h"
#include "shard/store/union_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { HELD_MAX = 8 };

struct test_folder homes[RANKS];
struct store *united;
int homes_hold_error;
unsigned homes_held;

static int held[HELD_MAX];	/* descriptors; -1; a hold is an index and 1 */
static unsigned descriptors;
static _Atomic uint64_t now_ms = 1000000;

/* ---- the clock ----------------------------------------------------------- */

int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

/* Only looks use this clock. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
	uint64_t ms = atomic_load(&now_ms);

	if (clock != CLOCK_MONOTONIC_COARSE)
		return __real_clock_gettime(clock, time);
	*time = (struct timespec){ (time_t)(ms / 1000),
				   (long)(ms % 1000) * 1000000 };
	return 0;
}

void homes_later(unsigned ms)
{
	atomic_fetch_add(&now_ms, ms);
}

/* ---- what ranks are asked ------------------------------------------------ */

static void list(struct peers *p, uint32_t of, const char *path,
		 struct peer_list *lists, unsigned count)
{
	unsigned i;

	(void)p;
	for (i = 0; i < count; i++) {
		struct fake_rank *fake = &fakes[lists[i].rank];

		fake->lists += of == PEERS_OWN;
		lists[i].error = fake->error ? fake->error :
			of != PEERS_OWN ? -ENODATA :
			folder_records_list(homes[lists[i].rank].fd, path,
					    lists[i].out);
	}
}

static int status(struct peers *p, unsigned rank, const char *path,
		  struct array *out)
{
	(void)p;
	return fakes[rank].error ? fakes[rank].error :
	       folder_records_status(homes[rank].fd, path, out);
}

/* Open what is at @path, if it has the bytes of @pin. */
static int open_pinned(unsigned rank, const char *path, const struct pin *pin,
		       int *ret_fd, struct pin *ret_pin)
{
	struct stat now;
	int error = fakes[rank].error ? fakes[rank].error :
		    folder_records_open(homes[rank].fd, path, ret_fd, &now);

	if (error)
		return error;
	*ret_pin = pin_from_stat(&now);
	if (pin->inode == 0 || pin_same_bytes(pin, ret_pin))
		return 0;
	close(*ret_fd);
	return -ESTALE;
}

static int digest(struct peers *p, unsigned rank,
		  const struct file_range *range, uint64_t ret_hash[2])
{
	struct pin pin;
	int fd, error = open_pinned(rank, range->path, &range->pin, &fd, &pin);

	(void)p;
	fakes[rank].digests++;
	if (error)
		return error;
	error = folder_records_digest(fd, pin.size, ret_hash);
	close(fd);
	return error;
}

static int read_file(struct peers *p, unsigned rank,
		     const struct file_range *range, void *buffer,
		     size_t *ret_size)
{
	struct io_file file = { .fd = -1 };
	struct stat now;
	struct pin pin;
	uint64_t done;
	int error = fakes[rank].error;

	(void)p;
	if (!error && range->hold) {
		file.fd = dup(held[range->hold - 1]);
		assert_int_equal(fstat(file.fd, &now), 0);
		pin = pin_from_stat(&now);
		if (range->exact && !pin_same_bytes(&range->pin, &pin))
			error = -ESTALE;
	} else if (!error) {
		error = open_pinned(rank, range->path, &range->pin, &file.fd,
				    &pin);
	}
	if (!error)
		error = io_read_up_to(&file, buffer, range->size,
				      range->offset, &done);
	if (file.fd >= 0)
		close(file.fd);
	if (!error)
		*ret_size = done;
	return error;
}

static int hold_file(struct peers *p, unsigned rank, const char *path,
		     struct pin *pin, uint64_t *ret_hold)
{
	const struct pin wanted = *pin;
	unsigned i;
	int fd, error = homes_hold_error;

	(void)p;
	if (!error)
		error = open_pinned(rank, path, &wanted, &fd, pin);
	if (error)
		return error;
	for (i = 0; held[i] >= 0; i++)
		assert_true(i + 1 < HELD_MAX);
	held[i] = fd;
	homes_held++;
	*ret_hold = i + 1;
	return 0;
}

static int held_status(struct peers *p, unsigned rank, uint64_t hold,
		       struct pin *ret_pin)
{
	struct stat now;

	(void)p;
	if (fakes[rank].error)
		return fakes[rank].error;
	assert_int_equal(fstat(held[hold - 1], &now), 0);
	*ret_pin = pin_from_stat(&now);
	return 0;
}

static void release(struct peers *p, unsigned rank, uint64_t hold)
{
	(void)p;
	(void)rank;
	assert_true(held[hold - 1] >= 0);
	close(held[hold - 1]);
	held[hold - 1] = -1;
	homes_held--;
}

/* ---- for each test ------------------------------------------------------- */

int homes_setup(void **state)
{
	unsigned i;

	union_setup(state);
	descriptors = folder_count_descriptors();
	for (i = 0; i < RANKS; i++)
		folder_make(&homes[i]);
	for (i = 0; i < HELD_MAX; i++)
		held[i] = -1;
	homes_hold_error = 0;
	stores[NEAR] = homes[NEAR].fd;
	stores[OWN] = homes[OWN].fd;
	peers.list = list;
	peers.status = status;
	peers.digest = digest;
	peers.file = read_file;
	peers.hold_file = hold_file;
	peers.held_status = held_status;
	peers.release = release;
	united = union_store_create(&peers, say, &peers);
	return united ? 0 : -1;
}

int homes_teardown(void **state)
{
	unsigned i;

	united->destroy(united);
	assert_int_equal(homes_held, 0);
	for (i = 0; i < RANKS; i++)
		folder_remove(&homes[i]);
	assert_int_equal(folder_count_descriptors(), descriptors);
	return union_teardown(state);
}

/* ---- what is in them ----------------------------------------------------- */

void homes_folder(unsigned rank, const char *path)
{
	assert_int_equal(mkdirat(homes[rank].fd, path, 0755), 0);
}

void homes_write(unsigned rank, const char *path, const char *text)
{
	folder_write(&homes[rank], path, text, strlen(text));
}

void homes_rename(unsigned rank, const char *from, const char *to)
{
	assert_int_equal(renameat(homes[rank].fd, from, homes[rank].fd, to),
			 0);
}

void homes_remove(unsigned rank, const char *path, int flags)
{
	assert_int_equal(unlinkat(homes[rank].fd, path, flags), 0);
}

/* ---- what is found ------------------------------------------------------- */

void homes_check(const char *path, const char *text)
{
	storing_check(united, store_path_in(NULL, path), text);
}

void homes_check_error(const char *path, int error)
{
	storing_check_error(united, store_path_in(NULL, path), error);
}

struct stat homes_find(const char *path, unsigned owner)
{
	struct store_found got;

	assert_int_equal(united->find(united, store_path_in(NULL, path), &got),
			 0);
	assert_int_equal(got.owner, owner);
	return got.status;
}

int homes_find_error(const char *path)
{
	struct store_found got;

	return united->find(united, store_path_in(NULL, path), &got);
}

static int open_in(struct store_folder *folder, const char *name,
		   unsigned *ret_rank, char text[STORING_TEXT])
{
	struct stored_file *file;
	int error = united->open_in(folder, name, &file);

	if (error)
		return error;
	*ret_rank = file->rank;
	error = storing_read(file, true, text);
	file->close(file);
	return error;
}

void homes_check_in(struct store_folder *folder, const char *name,
		    unsigned rank, const char *text)
{
	char got[STORING_TEXT];
	unsigned at;

	assert_int_equal(open_in(folder, name, &at, got), 0);
	assert_string_equal(got, text);
	assert_int_equal(at, rank);
}

void homes_check_in_error(struct store_folder *folder, const char *name,
			  int error)
{
	char got[STORING_TEXT];
	unsigned at;

	assert_int_equal(open_in(folder, name, &at, got), error);
}
