/* SPDX-License-Identifier: Apache-2.0 */
/* Items that are made once, kept while there is room, and made again. */
#include "support/test.h"
#include "support/dice.h"
#include "support/folder.h"

#include "shard/base/io.h"
#include "shard/base/limits.h"
#include "shard/codec/decoded_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static struct dice dice;
static struct decoded_cache *cache;
static int owner_a, owner_b;	/* their addresses are the owners */

/* ---- what the process holds, as the kernel has it ------------------------ */

struct held {
	unsigned count;		/* items' descriptors */
	uint64_t size;		/* bytes of their files */
};

static struct held count_held(void)
{
	DIR *stream = opendir("/proc/self/fd");
	struct held held = { .count = 0 };
	struct dirent *entry;
	struct stat status;
	char target[256];

	assert_non_null(stream);
	while ((entry = readdir(stream))) {
		ssize_t size = readlinkat(dirfd(stream), entry->d_name, target,
					  sizeof(target) - 1);

		if (size <= 0)
			continue;
		target[size] = '\0';
		if (!strstr(target, "memfd:ckptfs decoded item") ||
		    fstatat(dirfd(stream), entry->d_name, &status, 0) < 0)
			continue;
		held.count++;
		held.size += (uint64_t)status.st_size;
	}
	closedir(stream);
	return held;
}

/* Is more held than @limit? Items come and go while they are counted: what is
 * too much stays so for a while. */
static bool is_above(uint64_t limit)
{
	unsigned i;

	for (i = 0; i < 20; i++)
		if (count_held().size <= limit)
			return false;
	return true;
}

/* ---- makers -------------------------------------------------------------- */

/* Byte @at of item @index. */
static unsigned char byte_of(uint64_t index, uint64_t at)
{
	return (unsigned char)(index * 37 + at + at / 251);
}

struct test_maker {
	struct decoded_maker maker;	/* first: passed as this */
	uint64_t index, size;
	uint64_t limit;			/* of all items' bytes; 0: not looked
					 * at */
	int error;			/* that comes instead of an item */
	unsigned pause_us;		/* before each block */
	atomic_uint runs;
};

enum { BLOCK = 8192 };

static int make(struct decoded_maker *maker, struct decoded *item)
{
	struct test_maker *m = (struct test_maker *)maker;
	unsigned char block[BLOCK];
	uint64_t done = 0, i;
	int error = 0;

	atomic_fetch_add(&m->runs, 1);
	while (done < m->size && !error) {
		uint64_t size = m->size - done < BLOCK ? m->size - done :
							 BLOCK;

		if (m->pause_us)
			usleep(m->pause_us);
		for (i = 0; i < size; i++)
			block[i] = byte_of(m->index, done + i);
		error = decoded_write(item, block, size);
		done += size;
		if (m->limit && is_above(m->limit))
			error = -EDOM;
	}
	return error ? error : m->error;
}

static struct test_maker maker_of(uint64_t index, uint64_t size)
{
	return (struct test_maker){ .maker = { make }, .index = index,
				    .size = size };
}

static bool is_right(const struct decoded *item, uint64_t index, uint64_t size)
{
	unsigned char *found = malloc(size + 1);
	bool right = found && item->size == size;
	uint64_t i;

	if (right && size > 0)
		right = io_read(item->fd, found, size, 0) == 0;
	for (i = 0; i < size && right; i++)
		right = found[i] == byte_of(index, i);
	free(found);
	return right;
}

/* Get item @index of @owner, look at it, and put it back. */
static unsigned use(const void *owner, uint64_t index, uint64_t size)
{
	struct test_maker maker = maker_of(index, size);
	struct decoded *item;

	assert_int_equal(decoded_cache_get(cache, owner, index, &maker.maker,
					   &item), 0);
	assert_true(is_right(item, index, size));
	decoded_cache_put(item);
	return maker.runs;
}

/* ---- one thread ---------------------------------------------------------- */

static void made_once(void **state)
{
	struct held held;

	(void)state;
	cache = decoded_cache_create(1 << 20);
	assert_int_equal(use(&owner_a, 1, 5000), 1);
	assert_int_equal(use(&owner_a, 1, 5000), 0);
	assert_int_equal(use(&owner_a, 2, 0), 1);
	assert_int_equal(use(&owner_a, 2, 0), 0);
	/* Of another owner. */
	assert_int_equal(use(&owner_b, 1, 300000), 1);
	assert_int_equal(use(&owner_a, 1, 5000), 0);
	held = count_held();
	assert_int_equal(held.count, 2);
	assert_int_equal(held.size, 305000);
	decoded_cache_destroy(cache);
	assert_int_equal(count_held().count, 0);
}

static void nobody_can_change_it(void **state)
{
	struct test_maker maker = maker_of(1, 5000);
	struct decoded *item;

	(void)state;
	cache = decoded_cache_create(1 << 20);
	assert_int_equal(decoded_cache_get(cache, &owner_a, 1, &maker.maker,
					   &item), 0);
	assert_int_equal(pwrite(item->fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(item->fd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_true(fcntl(item->fd, F_GETFD) & FD_CLOEXEC);
	decoded_cache_put(item);
	decoded_cache_destroy(cache);
}

static void without_waiting(void **state)
{
	struct decoded *item;

	(void)state;
	cache = decoded_cache_create(1 << 20);
	assert_int_equal(decoded_cache_get(cache, &owner_a, 1, NULL, &item),
			 -EAGAIN);
	use(&owner_a, 1, 100);
	assert_int_equal(decoded_cache_get(cache, &owner_a, 1, NULL, &item),
			 0);
	assert_true(is_right(item, 1, 100));
	decoded_cache_put(item);
	decoded_cache_destroy(cache);
}

static void longest_unused_goes_first(void **state)
{
	uint64_t i;

	(void)state;
	cache = decoded_cache_create(8 * 4096);
	for (i = 0; i < 8; i++)
		use(&owner_a, i, 4096);
	use(&owner_a, 0, 4096);
	use(&owner_a, 1, 4096);
	/* Two go for this one: 2 and 3. */
	assert_int_equal(use(&owner_a, 100, 4097), 1);
	assert_true(count_held().size <= 8 * 4096);
	assert_int_equal(use(&owner_a, 0, 4096), 0);
	assert_int_equal(use(&owner_a, 1, 4096), 0);
	for (i = 4; i < 8; i++)
		assert_int_equal(use(&owner_a, i, 4096), 0);
	assert_int_equal(use(&owner_a, 100, 4097), 0);
	assert_int_equal(use(&owner_a, 2, 4096), 1);
	decoded_cache_destroy(cache);
}

static void what_is_in_use_stays(void **state)
{
	struct test_maker maker = maker_of(1, 4096);
	struct decoded *item;

	(void)state;
	cache = decoded_cache_create(3 * 4096);
	assert_int_equal(decoded_cache_get(cache, &owner_a, 1, &maker.maker,
					   &item), 0);
	assert_int_equal(use(&owner_a, 2, 4096), 1);
	assert_int_equal(use(&owner_a, 3, 8192), 1);
	assert_int_equal(use(&owner_a, 2, 4096), 1);
	assert_true(is_right(item, 1, 4096));
	decoded_cache_put(item);
	assert_int_equal(use(&owner_a, 1, 4096), 0);
	decoded_cache_destroy(cache);
}

/* Not even the page that it begins has to fit. */
static void as_large_as_the_cache(void **state)
{
	(void)state;
	cache = decoded_cache_create(5000);
	assert_int_equal(decoded_cache_limit(cache), 5000);
	assert_int_equal(use(&owner_a, 1, 5000), 1);
	assert_int_equal(use(&owner_a, 2, 4999), 1);
	assert_int_equal(count_held().size, 4999);
	decoded_cache_destroy(cache);
}

static void bounded_in_number(void **state)
{
	unsigned before = folder_count_descriptors();
	struct rlimit old, limit;
	uint64_t i;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &old);
	limit = old;
	limit.rlim_cur = old.rlim_max < 8192 ? old.rlim_max : 8192;
	setrlimit(RLIMIT_NOFILE, &limit);
	cache = decoded_cache_create(UINT64_C(1) << 40);
	for (i = 0; i < 1500; i++)
		assert_int_equal(use(&owner_a, i, 10), 1);
	assert_true(folder_count_descriptors() <= before + 1024);
	assert_int_equal(use(&owner_a, 1499, 10), 0);
	decoded_cache_destroy(cache);
	/* Where there are few descriptors, a quarter of them. */
	limit.rlim_cur = 200;
	setrlimit(RLIMIT_NOFILE, &limit);
	cache = decoded_cache_create(UINT64_C(1) << 40);
	for (i = 0; i < 300; i++)
		assert_int_equal(use(&owner_a, i, 10), 1);
	assert_true(folder_count_descriptors() <= before + 51);
	decoded_cache_destroy(cache);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_int_equal(folder_count_descriptors(), before);
}

static void what_fails_leaves_nothing(void **state)
{
	unsigned before = folder_count_descriptors();
	struct test_maker maker = maker_of(1, 100000);
	struct decoded *item = NULL;

	(void)state;
	cache = decoded_cache_create(1 << 20);
	maker.error = -EIO;
	assert_int_equal(decoded_cache_get(cache, &owner_a, 1, &maker.maker,
					   &item), -EIO);
	assert_null(item);
	assert_int_equal(folder_count_descriptors(), before);
	assert_int_equal(use(&owner_a, 2, 1 << 20), 1);
	/* It is not kept that it failed. */
	assert_int_equal(use(&owner_a, 1, 100000), 1);
	decoded_cache_destroy(cache);
}

static void no_descriptor(void **state)
{
	unsigned before = folder_count_descriptors();
	struct test_maker maker = maker_of(1, 100);
	struct rlimit old, limit;
	struct decoded *item;

	(void)state;
	cache = decoded_cache_create(1 << 20);
	getrlimit(RLIMIT_NOFILE, &old);
	limit = old;
	limit.rlim_cur = 0;
	setrlimit(RLIMIT_NOFILE, &limit);
	assert_int_equal(decoded_cache_get(cache, &owner_a, 1, &maker.maker,
					   &item), -EMFILE);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_int_equal(use(&owner_a, 1, 100), 1);
	decoded_cache_destroy(cache);
	assert_int_equal(folder_count_descriptors(), before);
}

/* However many there are, and wherever they stand in the table. */
static void owners_do_not_share(void **state)
{
	const void *owners[200];
	unsigned round, i;

	(void)state;
	cache = decoded_cache_create(1 << 20);
	for (i = 0; i < COUNT_OF(owners); i++)
		owners[i] = (const void *)(uintptr_t)dice_any(&dice);
	for (round = 0; round < 2; round++)
		for (i = 0; i < COUNT_OF(owners); i++) {
			struct test_maker maker = maker_of(i, 100);
			struct decoded *item;

			assert_int_equal(decoded_cache_get(cache, owners[i],
				7, &maker.maker, &item), 0);
			assert_true(is_right(item, i, 100));
			assert_int_equal(maker.runs, round == 0);
			decoded_cache_put(item);
		}
	decoded_cache_destroy(cache);
}

static void owners_that_go(void **state)
{
	uint64_t i;

	(void)state;
	cache = decoded_cache_create(1 << 20);
	for (i = 0; i < 50; i++) {
		use(&owner_a, i, 100);
		use(&owner_b, i, 100);
	}
	decoded_cache_forget(cache, &owner_a);
	assert_int_equal(count_held().count, 50);
	for (i = 0; i < 50; i++) {
		assert_int_equal(use(&owner_b, i, 100), 0);
		assert_int_equal(use(&owner_a, i, 200), 1);
	}
	decoded_cache_destroy(cache);
}

/* ---- many threads -------------------------------------------------------- */

enum { THREADS = 8 };

static void run_threads(void *(*run)(void *), void *argument)
{
	pthread_t threads[THREADS];
	uintptr_t wrong = 0;
	void *result;
	unsigned i;

	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run,
						argument), 0);
	for (i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		wrong += (uintptr_t)result;
	}
	assert_int_equal(wrong, 0);
}

static void *get_shared(void *argument)
{
	struct test_maker *maker = argument;
	struct decoded *item;
	uintptr_t wrong = 1;
	int error = decoded_cache_get(cache, &owner_a, maker->index,
				      &maker->maker, &item);

	if (error)
		return (void *)(uintptr_t)(error != maker->error);
	wrong = !is_right(item, maker->index, maker->size);
	decoded_cache_put(item);
	return (void *)wrong;
}

static void one_makes_and_the_others_wait(void **state)
{
	struct test_maker maker = maker_of(1, 20 * BLOCK);

	(void)state;
	cache = decoded_cache_create(1 << 20);
	maker.pause_us = 5000;
	run_threads(get_shared, &maker);
	assert_int_equal(maker.runs, 1);
	decoded_cache_destroy(cache);
}

static void who_waits_hears_of_the_error(void **state)
{
	struct test_maker maker = maker_of(1, 20 * BLOCK);

	(void)state;
	cache = decoded_cache_create(1 << 20);
	maker.pause_us = 5000;
	maker.error = -EDOM;
	run_threads(get_shared, &maker);
	assert_in_range(maker.runs, 1, THREADS - 1);
	assert_int_equal(count_held().count, 0);
	decoded_cache_destroy(cache);
}

static atomic_uint numbers;

/* Of its own, each more than half of the cache. */
static void *get_large(void *argument)
{
	uint64_t index = atomic_fetch_add(&numbers, 1), i;
	struct test_maker maker = maker_of(index, 75 * BLOCK);
	struct decoded *item;
	uintptr_t wrong = 0;

	(void)argument;
	maker.limit = 100 * BLOCK;
	maker.pause_us = 50;
	for (i = 0; i < 3 && !wrong; i++) {
		if (decoded_cache_get(cache, &owner_a, index, &maker.maker,
				      &item))
			return (void *)1;
		wrong = !is_right(item, index, maker.size);
		decoded_cache_put(item);
	}
	return (void *)wrong;
}

/* No two fit: each gets its turn, and never is there more than may be. */
static void more_than_there_is_room_for(void **state)
{
	(void)state;
	cache = decoded_cache_create(100 * BLOCK);
	run_threads(get_large, NULL);
	assert_int_equal(count_held().count, 1);
	decoded_cache_destroy(cache);
}

/* Any items, in any order, some of which fail, in a cache for few of them. */
static void *get_any(void *argument)
{
	struct dice mine = { dice_mix(atomic_fetch_add(&numbers, 1)) };
	unsigned i;

	(void)argument;
	for (i = 0; i < 400; i++) {
		uint64_t index = dice_below(&mine, 40);
		struct test_maker maker = maker_of(index, index * 3000 % 90000);
		const void *owner = index % 2 ? &owner_a : &owner_b;
		struct decoded *item;
		bool right;
		int error;

		maker.error = index % 10 == 3 ? -EIO : 0;
		error = decoded_cache_get(cache, owner, index,
					  dice_chance(&mine, 10) ? NULL :
					  &maker.maker, &item);
		if (error == -EAGAIN || (error && error == maker.error))
			continue;
		if (error)
			return (void *)1;
		right = is_right(item, index, maker.size);
		decoded_cache_put(item);
		if (!right || maker.error)
			return (void *)1;
	}
	return NULL;
}

static void any_items_in_any_order(void **state)
{
	unsigned before = folder_count_descriptors();
	struct held held;

	(void)state;
	cache = decoded_cache_create(100000);
	run_threads(get_any, NULL);
	held = count_held();
	assert_true(held.size <= 100000);
	decoded_cache_destroy(cache);
	assert_int_equal(folder_count_descriptors(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(made_once),
		cmocka_unit_test(nobody_can_change_it),
		cmocka_unit_test(without_waiting),
		cmocka_unit_test(longest_unused_goes_first),
		cmocka_unit_test(what_is_in_use_stays),
		cmocka_unit_test(as_large_as_the_cache),
		cmocka_unit_test(bounded_in_number),
		cmocka_unit_test(what_fails_leaves_nothing),
		cmocka_unit_test(no_descriptor),
		cmocka_unit_test(owners_do_not_share),
		cmocka_unit_test(owners_that_go),
		cmocka_unit_test(one_makes_and_the_others_wait),
		cmocka_unit_test(who_waits_hears_of_the_error),
		cmocka_unit_test(more_than_there_is_room_for),
		cmocka_unit_test(any_items_in_any_order),
	};

	dice = dice_make();
	atomic_store(&numbers, (unsigned)dice_below(&dice, 1000000));
	return cmocka_run_group_tests_name("decoded_cache", tests, NULL, NULL);
}
