/* SPDX-License-Identifier: Apache-2.0 */
/* A cluster whose module is not where it is looked for. */
#include "support/test.h"

#include "comm/cluster.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
/* Guarded by lock: */
static char said[1024];
static bool over, is_common;

static void started(void *context, const char *trouble, bool common)
{
	(void)context;
	pthread_mutex_lock(&lock);
	snprintf(said, sizeof(said), "%s", trouble ? trouble : "nothing");
	is_common = common;
	over = true;
	pthread_cond_broadcast(&change);
	pthread_mutex_unlock(&lock);
}

static void no_module(void **state)
{
	const struct cluster_options options = {
		.rank = 1, .count = 2,
		.mine = { .version = "1.0", .settings = "", .store = "/",
			  .point = "/mnt", .store_fd = -1 },
		.deadline_ms = 1000, .started = started,
	};
	struct cluster *cluster;
	struct peers *peers;

	(void)state;
	assert_int_equal(cluster_create(&options, &cluster), 0);
	assert_int_equal(cluster_start(cluster), 0);
	peers = cluster_peers(cluster);
	assert_int_equal(peers->wait_ready(peers), -ESHUTDOWN);
	pthread_mutex_lock(&lock);
	while (!over)
		pthread_cond_wait(&change, &lock);
	pthread_mutex_unlock(&lock);
	assert_ptr_equal(strstr(said, "no MPI: "), said);
	assert_non_null(strstr(said, "ckptfs_mpi.so"));
	assert_false(is_common);
	cluster_stop(cluster);
	cluster_destroy(cluster);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_module),
	};

	return cmocka_run_group_tests_name("cluster_alone", tests, NULL, NULL);
}
