/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint is replaced again and again, while threads ask one rank for
 * whatever there is, by the network and by its kernel. Each answer is that of
 * some moment, or says that it came too late. Races are for ThreadSanitizer to
 * find.
 */
#include "support/test.h"
#include "support/cat.h"
#include "support/mounts.h"
#include "support/peer_calls.h"
#include "support/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VIEWS ".ckptfs/views/step/"

enum { RANKS = 3, ROUNDS = 40, HALF = 32 * 64 * 4 };

/* ---- what is asked ------------------------------------------------------- */

/* Each says whether the answer was one that may be. */
static bool ask_catalog(void)
{
	char hash[33];
	int error = peer_calls_catalog(1, "step", mounts_signature(1, "step"),
				       false, hash);

	/* It was replaced, or it is just being looked at. */
	return !error || error == -ESTALE;
}

static bool ask_other_catalog(void)
{
	char hash[33];

	return peer_calls_catalog(2, "step", 77, false, hash) == -ESTALE;
}

/* Of what is refused: that it is, or that it is not looked at yet. */
static bool ask_refused(void)
{
	char hash[33];
	int error = peer_calls_catalog(1, "bad", mounts_signature(1, "bad"),
				       false, hash);

	return error == -EBADMSG || error == -ESTALE;
}

/* The same of what nobody shall look at. */
static bool ask_kept(void)
{
	char hash[33];
	int error = peer_calls_catalog(2, "bad", mounts_signature(2, "bad"),
				       true, hash);

	return error == -EBADMSG || error == -ESTALE;
}

static bool ask_status(void)
{
	char name[256], target[4096];
	struct stat status;

	return peer_calls_status(1, 0, "step/.metadata", &status, name,
				 target) == 0 &&
	       strcmp(name, ".metadata") == 0;
}

static bool ask_list(void)
{
	char *names;
	bool good;

	if (peer_calls_list(2, 0, PEERS_OWN, "step", &names))
		return false;
	good = strstr(names, ".metadata\n__0_0.distcp\n") != NULL;
	free(names);
	return good;
}

/* A stored file is read as a whole by who opened it, or not. */
static bool ask_file(void)
{
	const struct file_range range = {
		.path = "step/__0_0.distcp", .size = 8,
	};
	struct peers *peers = mounts_peers(1);
	char data[8];
	size_t got = 0;
	int error = peers->file(peers, 0, &range, data, &got);

	return !error && got == 8 && memcmp(data, "PK", 2) == 0;
}

static bool list_folder(void)
{
	char *names;
	bool good;

	if (kernel_list(mounts_kernel(0), "step", &names))
		return false;
	good = strncmp(names, ".metadata\n__0_0.distcp\n", 23) == 0;
	free(names);
	return good;
}

static bool list_refused(void)
{
	char *names;
	bool good;

	if (kernel_list(mounts_kernel(0), "bad", &names))
		return false;
	/* The next one may be listed while it is written. */
	good = strncmp(names, ".metadata\n", 10) == 0;
	free(names);
	return good;
}

/* Rows of one file, which are all old or all new. */
static bool is_half(const char *data, size_t size, unsigned begin)
{
	unsigned char first = (unsigned char)data[0] ==
			      sample_byte(1, begin) ? 1 : 9;
	size_t i;

	for (i = 0; i < size; i++)
		if ((unsigned char)data[i] !=
		    sample_byte(first, begin + (unsigned)i))
			return false;
	return size == HALF;
}

static bool read_half(unsigned rank, const char *path, unsigned begin)
{
	size_t size;
	char *data;
	bool good;
	int error = cat_file(mounts_kernel(rank), path, &data, &size);

	/* While it is replaced, it may be that there are no views. */
	if (error)
		return error == -ESTALE || error == -ENOENT;
	good = is_half(data, size, begin);
	free(data);
	return good;
}

static bool read_near(void)
{
	return read_half(0, VIEWS "tensors/w[0:32]", 0);
}

static bool read_far(void)
{
	return read_half(1, VIEWS "tensors/w[0:32]", 0);
}

static bool read_other(void)
{
	return read_half(2, VIEWS "tensors/w[32:64]", HALF);
}

static bool read_report(void)
{
	return cat_error(mounts_kernel(0), ".ckptfs/status.json") == 0;
}

/* ---- who asks ------------------------------------------------------------ */

static struct asker {
	bool (*ask)(void);
	pthread_t thread;
	unsigned rounds;		/* guarded by lock, like all below */
	bool wrong;
} askers[] = {
	{ .ask = ask_catalog }, { .ask = ask_catalog },
	{ .ask = ask_other_catalog }, { .ask = ask_status },
	{ .ask = ask_list }, { .ask = ask_file }, { .ask = list_folder },
	{ .ask = ask_refused }, { .ask = ask_kept }, { .ask = ask_kept },
	{ .ask = list_refused }, { .ask = read_near }, { .ask = read_far },
	{ .ask = read_other }, { .ask = read_report },
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static bool over;			/* guarded by lock */

static void *run(void *argument)
{
	struct asker *asker = argument;
	bool end = false, good;

	while (!end) {
		good = asker->ask();
		pthread_mutex_lock(&lock);
		asker->rounds++;
		asker->wrong |= !good;
		end = over;
		pthread_cond_broadcast(&change);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

/* Until everybody has had another answer. */
static void await_all(void)
{
	unsigned before[COUNT_OF(askers)];
	size_t i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < COUNT_OF(askers); i++)
		before[i] = askers[i].rounds;
	for (i = 0; i < COUNT_OF(askers); i++)
		while (askers[i].rounds == before[i])
			pthread_cond_wait(&change, &lock);
	pthread_mutex_unlock(&lock);
}

/* Metadata that is bad at its end, which takes its time. */
static void put_refused(void)
{
	struct test_folder bad = mounts_folder(0, "bad");
	static char pickle[128 * 1024] = "\x80\4";
	size_t i;

	for (i = 2; i < sizeof(pickle) - 2; i += 2)
		memcpy(pickle + i, "N0", 2);
	folder_write(&bad, ".new", pickle, sizeof(pickle));
	assert_int_equal(renameat(bad.fd, ".new", mounts_stores[0].fd,
				  "bad/.metadata"), 0);
	close(bad.fd);
}

/* Metadata and a shard of rank 0, a shard of rank 1: one after the other. */
static void replace(unsigned char first)
{
	static const char *const names[] = {
		".metadata", "__0_0.distcp", "__1_0.distcp",
	};
	struct test_folder next, step;
	unsigned i;

	for (i = 0; i < COUNT_OF(names); i++) {
		unsigned rank = i == 2;

		next = mounts_folder(rank, "next");
		step = mounts_folder(rank, "step");
		sample_write(&next, false, first);
		assert_int_equal(renameat(next.fd, names[i], step.fd,
					  names[i]), 0);
		close(next.fd);
		close(step.fd);
	}
}

static void all_at_once(void **state)
{
	const struct mounts_options options = { .count = RANKS };
	unsigned round;
	size_t i;

	(void)state;
	mounts_prepare(RANKS);
	replace(1);
	put_refused();
	mounts_start(&options);
	for (i = 0; i < COUNT_OF(askers); i++)
		assert_int_equal(pthread_create(&askers[i].thread, NULL, run,
						&askers[i]), 0);
	for (round = 0; round < ROUNDS; round++) {
		replace(round % 2 ? 1 : 9);
		put_refused();
		mounts_later(1000);
		await_all();
	}
	pthread_mutex_lock(&lock);
	over = true;
	pthread_mutex_unlock(&lock);
	for (i = 0; i < COUNT_OF(askers); i++) {
		assert_int_equal(pthread_join(askers[i].thread, NULL), 0);
		if (askers[i].wrong)
			print_error("asker %zu was answered wrong\n", i);
	}
	for (i = 0; i < COUNT_OF(askers); i++)
		assert_false(askers[i].wrong);
	/* Then all is as if nothing had happened. */
	mounts_later(1000);
	for (i = 0; i < RANKS; i++)
		cat_check_sample(mounts_kernel((unsigned)i), VIEWS "tensors/w",
				 1, 0, SAMPLE_SIZE);
}

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(all_at_once, stop),
	};

	return cmocka_run_group_tests_name("serve_at_once", tests, NULL, NULL);
}
