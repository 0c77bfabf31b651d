/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ranks say of themselves when they meet, and whom all of them refuse:
 * over a transport whose exchange gives what the test wants, as if it came
 * from other ranks.
 */
#include "support/test.h"
#include "support/folder.h"

#include "comm/handshake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RANKS = 3 };

/* What everybody is told of everybody. */
static struct hello said[RANKS];
static int exchange_error;

static int exchange(struct transport *transport, const void *mine, size_t size,
		    void *all)
{
	assert_int_equal(size, sizeof(struct hello));
	if (exchange_error)
		return exchange_error;
	assert_memory_equal(mine, &said[transport->rank], size);
	memcpy(all, said, sizeof(said));
	return 0;
}

static struct hello make_hello(const char *version, const char *settings,
			       const char *point)
{
	const struct handshake_options options = {
		.version = version, .settings = settings, .store = "/store",
		.point = point, .store_fd = -1,
	};
	struct hello hello;

	handshake_hello(&options, &hello);
	return hello;
}

/* Ranks that fit together, each on a host of its own. */
static int setup(void **state)
{
	unsigned rank;

	(void)state;
	exchange_error = 0;
	for (rank = 0; rank < RANKS; rank++) {
		said[rank] = make_hello("1.0", "deadline=10", "/mnt");
		said[rank].machine = rank;
		snprintf(said[rank].host, sizeof(said[rank].host), "node%u",
			 rank);
	}
	return 0;
}

static int handshake_as(unsigned rank, struct hello heard[RANKS], char *trouble)
{
	struct transport transport = {
		.rank = rank, .count = RANKS, .exchange = exchange,
	};

	return meet(&transport, &said[rank], heard, trouble);
}

/* All ranks refuse, and say the same: a sentence with all of @words, which end
 * with NULL. */
static void check_refused(const char *const *words)
{
	char trouble[RANKS][1024];
	struct hello heard[RANKS];
	unsigned rank;

	for (rank = 0; rank < RANKS; rank++) {
		memset(trouble[rank], 'x', sizeof(trouble[rank]));
		assert_int_equal(handshake_as(rank, heard, trouble[rank]),
				 -EPROTO);
		assert_non_null(memchr(trouble[rank], '\0', 1024));
		assert_string_equal(trouble[rank], trouble[0]);
	}
	for (; *words; words++)
		if (!strstr(trouble[0], *words))
			fail_msg("\"%s\" is not in \"%s\"", *words,
				 trouble[0]);
}

#define CHECK_REFUSED(...) \
	check_refused((const char *const[]){ __VA_ARGS__, NULL })

static void check_met(struct hello heard[RANKS])
{
	char trouble[1024] = "none";
	unsigned rank;

	for (rank = 0; rank < RANKS; rank++) {
		memset(heard, 'x', RANKS * sizeof(*heard));
		assert_int_equal(handshake_as(rank, heard, trouble), 0);
		assert_string_equal(trouble, "none");
	}
}

/* ---- who fits ------------------------------------------------------------ */

static void equal_ranks(void **state)
{
	struct hello heard[RANKS];

	(void)state;
	said[1].bell.port = 77;
	check_met(heard);
	assert_memory_equal(heard, said, sizeof(said));
}

static void what_is_said(void **state)
{
	char host[64] = "";
	struct hello first = make_hello("1.0", "deadline=10", "/mnt");
	struct hello second = make_hello("1.0", "deadline=10", "/mnt");

	(void)state;
	gethostname(host, sizeof(host) - 1);
	assert_string_equal(first.version, "1.0");
	assert_string_equal(first.settings, "deadline=10");
	assert_string_equal(first.store, "/store");
	assert_string_equal(first.host, host);
	assert_int_equal(first.pid, getpid());
	/* One host, and one mount point; each job has a nonce of its own. */
	assert_int_equal(first.machine, second.machine);
	assert_int_equal(first.point, second.point);
	assert_int_not_equal(first.nonce, second.nonce);
	second = make_hello("1.0", "deadline=10", "/other");
	assert_int_not_equal(first.point, second.point);
}

static void network_fails(void **state)
{
	struct hello heard[RANKS];
	char trouble[1024] = "none";

	(void)state;
	exchange_error = -ECONNRESET;
	assert_int_equal(handshake_as(1, heard, trouble), -ECONNRESET);
	assert_string_equal(trouble, "none");
}

/* ---- who does not -------------------------------------------------------- */

static void another_version(void **state)
{
	(void)state;
	strcpy(said[2].version, "1.1");
	CHECK_REFUSED("rank 2 on node2", "version 1.1", "rank 0 on node0",
		      "1.0");
}

static void another_protocol(void **state)
{
	(void)state;
	said[1].protocol++;
	CHECK_REFUSED("rank 1 on node1", "version");
}

static void another_program(void **state)
{
	(void)state;
	memset(&said[1], 0xff, sizeof(said[1]));
	CHECK_REFUSED("rank 1 is another program");
	memset(&said[1], 0, sizeof(said[1]));
	CHECK_REFUSED("rank 1 is another program");
	setup(NULL);
	said[0].magic++;
	CHECK_REFUSED("rank 0 is another program");
}

static void other_settings(void **state)
{
	(void)state;
	strcpy(said[1].settings, "deadline=3,force_mpi");
	CHECK_REFUSED("rank 1 on node1", "deadline=3,force_mpi",
		      "rank 0 on node0", "deadline=10");
}

/* What is too long to be said counts all the same. */
static void long_settings(void **state)
{
	char text[1000] = "hf_root=";
	struct hello heard[RANKS], whole;
	unsigned rank;

	(void)state;
	memset(text + 8, 'm', sizeof(text) - 9);
	for (rank = 0; rank < RANKS; rank++) {
		whole = make_hello("1.0", text, "/mnt");
		memcpy(said[rank].settings, whole.settings,
		       sizeof(whole.settings));
	}
	check_met(heard);
	text[sizeof(text) - 2] = 'n';
	whole = make_hello("1.0", text, "/mnt");
	memcpy(said[2].settings, whole.settings, sizeof(whole.settings));
	CHECK_REFUSED("rank 2 on node2", "rank 0 on node0", "hf_root=mmm");
}

static void one_mount_point_for_two(void **state)
{
	struct hello heard[RANKS];

	(void)state;
	said[2].machine = said[1].machine;
	CHECK_REFUSED("ranks 1 and 2 on node1", "same mount point", "%r");
	said[2].point++;
	check_met(heard);
}

/* A text of another rank ends, and can be printed. */
static void unprintable_texts(void **state)
{
	struct hello heard[RANKS];
	char trouble[1024];
	const char *p;

	(void)state;
	memset(said[1].host, 'h', sizeof(said[1].host));
	memset(said[1].version, 'v', sizeof(said[1].version));
	memset(said[1].settings, 's', sizeof(said[1].settings));
	memset(said[1].store, '/', sizeof(said[1].store));
	memcpy(said[1].version, "\n\x1b[2J\x7f", 6);
	assert_int_equal(handshake_as(0, heard, trouble), -EPROTO);
	assert_non_null(strstr(trouble, "version ??[2J?vvv"));
	for (p = trouble; *p; p++)
		assert_in_range((unsigned char)*p, ' ', '~');
	/* The same where only settings differ. */
	strcpy(said[1].version, "1.0");
	memcpy(said[1].settings, "a\tb\n", 4);
	assert_int_equal(handshake_as(0, heard, trouble), -EPROTO);
	assert_non_null(strstr(trouble, "started with a?b?sss"));
	for (p = trouble; *p; p++)
		assert_in_range((unsigned char)*p, ' ', '~');
	/* And where nothing does. */
	memcpy(said[1].settings, said[0].settings, sizeof(said[0].settings));
	memcpy(said[1].host, "a\nb", 3);
	check_met(heard);
	assert_int_equal(strlen(heard[1].host), sizeof(heard[1].host) - 1);
	assert_memory_equal(heard[1].host, "a?b", 3);
	assert_int_equal(strlen(heard[1].store), sizeof(heard[1].store) - 1);
}

/* ---- stores -------------------------------------------------------------- */

static struct test_folder folder;

static int make_folder(void **state)
{
	(void)state;
	folder_make(&folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	folder_remove(&folder);
	return 0;
}

/* The hello of a rank whose store is @name in the folder. */
static struct hello hello_of_store(const char *name, char path[128])
{
	struct handshake_options options = {
		.version = "1.0", .settings = "", .point = "/mnt",
	};
	struct hello hello;

	snprintf(path, 128, "%s/%s", folder.path, name);
	options.store = path;
	options.store_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(options.store_fd >= 0);
	handshake_hello(&options, &hello);
	close(options.store_fd);
	return hello;
}

static void store_on_this_host(void **state)
{
	struct stat wanted, status;
	struct hello mine, other;
	char path[128];
	int fd;

	(void)state;
	assert_int_equal(mkdirat(folder.fd, "a", 0755), 0);
	assert_int_equal(mkdirat(folder.fd, "b", 0755), 0);
	mine = hello_of_store("a", path);
	other = hello_of_store("b", path);
	fd = handshake_open_store(&mine, &other);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(stat(path, &wanted), 0);
	assert_int_equal(status.st_ino, wanted.st_ino);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fd);
}

static void store_on_another_host(void **state)
{
	struct hello mine, other;
	char path[128];

	(void)state;
	assert_int_equal(mkdirat(folder.fd, "b", 0755), 0);
	mine = other = hello_of_store("b", path);
	other.machine++;
	assert_int_equal(handshake_open_store(&mine, &other), -1);
}

/* Its path means something else here: in a container, or it was moved. */
static void path_of_another_folder(void **state)
{
	unsigned descriptors = folder_count_descriptors();
	struct hello mine, other;
	char path[128];

	(void)state;
	assert_int_equal(mkdirat(folder.fd, "b", 0755), 0);
	mine = other = hello_of_store("b", path);
	assert_int_equal(renameat(folder.fd, "b", folder.fd, "moved"), 0);
	assert_int_equal(handshake_open_store(&mine, &other), -1);
	assert_int_equal(mkdirat(folder.fd, "b", 0755), 0);
	assert_int_equal(handshake_open_store(&mine, &other), -1);
	assert_int_equal(unlinkat(folder.fd, "b", AT_REMOVEDIR), 0);
	folder_write(&folder, "b", "", 0);
	assert_int_equal(handshake_open_store(&mine, &other), -1);
	assert_int_equal(folder_count_descriptors(), descriptors);
}

/* Nor is one believed that depends on where who looks just is. */
static void relative_path(void **state)
{
	int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct hello mine, other;
	char path[128];

	(void)state;
	assert_int_equal(mkdirat(folder.fd, "b", 0755), 0);
	mine = other = hello_of_store("b", path);
	assert_int_equal(fchdir(folder.fd), 0);
	strcpy(other.store, "b");
	assert_int_equal(handshake_open_store(&mine, &other), -1);
	assert_int_equal(fchdir(here), 0);
	close(here);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(equal_ranks, setup),
		cmocka_unit_test(what_is_said),
		cmocka_unit_test_setup(network_fails, setup),
		cmocka_unit_test_setup(another_version, setup),
		cmocka_unit_test_setup(another_protocol, setup),
		cmocka_unit_test_setup(another_program, setup),
		cmocka_unit_test_setup(other_settings, setup),
		cmocka_unit_test_setup(long_settings, setup),
		cmocka_unit_test_setup(one_mount_point_for_two, setup),
		cmocka_unit_test_setup(unprintable_texts, setup),
		cmocka_unit_test_setup_teardown(store_on_this_host,
						make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(store_on_another_host,
						make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(path_of_another_folder,
						make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(relative_path, make_folder,
						remove_folder),
	};

	return cmocka_run_group_tests_name("handshake", tests, NULL, NULL);
}
