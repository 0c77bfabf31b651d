/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank answers when another one asks for its files and folders. */
#include "support/test.h"
#include "support/cat.h"
#include "support/mounts.h"
#include "support/peer_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { RANKS = 3 };

static int stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

static void start(void)
{
	const struct mounts_options options = { .count = RANKS };

	mounts_start(&options);
}

/* ---- lists --------------------------------------------------------------- */

/* Names that begin like the one before, with targets that make lists long. */
static char *put_links(int folder)
{
	char name[256] = "", target[4096] = "", *names, *end;
	unsigned size;
	char letter;

	memset(target, 't', sizeof(target) - 1);
	names = end = malloc(2 * 256 * 256);
	assert_non_null(names);
	for (letter = 'x'; letter <= 'y'; letter++)
		for (size = 1; size < sizeof(name); size++) {
			memset(name, letter, size);
			name[size] = '\0';
			assert_int_equal(symlinkat(target, folder, name), 0);
			end += sprintf(end, "%s\n", name);
		}
	return names;
}

/* They take three answers of at most a MiB. */
static void long_list(void **state)
{
	struct test_folder folder;
	char *wanted, *names;

	(void)state;
	mounts_prepare(RANKS);
	folder = mounts_folder(0, "long");
	wanted = put_links(folder.fd);
	close(folder.fd);
	start();
	assert_int_equal(peer_calls_list(1, 0, PEERS_OWN, "long", &names), 0);
	assert_string_equal(names, wanted);
	free(names);
	cat_check_list(mounts_kernel(2), "long", wanted);
	free(wanted);
}

static void other_lists(void **state)
{
	char *names;

	(void)state;
	mounts_prepare(RANKS);
	close(mounts_folder(0, "empty").fd);
	folder_write(&mounts_stores[0], "file", "text", 4);
	assert_int_equal(symlinkat("empty", mounts_stores[0].fd, "link"), 0);
	folder_write(&mounts_stores[1], "not of rank 0", "", 0);
	start();
	assert_int_equal(peer_calls_list(1, 0, PEERS_OWN, "", &names), 0);
	assert_string_equal(names, "empty\nfile\nlink\n");
	free(names);
	assert_int_equal(peer_calls_list(1, 0, PEERS_OWN, "empty", &names), 0);
	assert_string_equal(names, "");
	free(names);
	assert_int_equal(peer_calls_list(1, 0, PEERS_OWN, "nothing", &names),
			 -ENOENT);
	assert_int_equal(peer_calls_list(1, 0, PEERS_OWN, "file", &names),
			 -ENOTDIR);
}

/* What rank 1 has seen of rank 2, which does not answer any more. */
static void remembered_list(void **state)
{
	struct test_folder folder;
	char *names;

	(void)state;
	mounts_prepare(RANKS);
	folder = mounts_folder(2, "seen");
	folder_write(&folder, "file", "", 0);
	close(folder.fd);
	close(mounts_folder(2, "unseen").fd);
	close(mounts_folder(1, "seen/inner").fd);
	start();
	cat_check_list(mounts_kernel(1), "seen", "file\ninner\n");
	ranks_pause(&mounts_ranks, 2);
	assert_int_equal(peer_calls_list(0, 1, 2, "seen", &names), 0);
	assert_string_equal(names, "file\n");
	free(names);
	assert_int_equal(peer_calls_list(0, 1, 0, "seen", &names), 0);
	assert_string_equal(names, "");
	free(names);
	assert_int_equal(peer_calls_list(0, 1, 2, "unseen", &names), -ENODATA);
	assert_int_equal(peer_calls_list(0, 1, RANKS, "seen", &names),
			 -ENODATA);
}

/* ---- status -------------------------------------------------------------- */

static void check_status(const char *path, const char *name, mode_t type,
			 const char *target)
{
	char got_name[256], got_target[4096];
	struct stat wanted, status;

	assert_int_equal(fstatat(mounts_stores[0].fd, *path ? path : ".",
				 &wanted, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(wanted.st_mode & S_IFMT, type);
	assert_int_equal(peer_calls_status(1, 0, path, &status, got_name,
					   got_target), 0);
	assert_string_equal(got_name, name);
	assert_string_equal(got_target, target);
	assert_int_equal(status.st_mode, wanted.st_mode);
	assert_int_equal(status.st_uid, wanted.st_uid);
	assert_int_equal(status.st_size, wanted.st_size);
	assert_int_equal(status.st_ino, wanted.st_ino);
	assert_int_equal(status.st_mtim.tv_sec, wanted.st_mtim.tv_sec);
	assert_int_equal(status.st_mtim.tv_nsec, wanted.st_mtim.tv_nsec);
}

static void status_of_all_kinds(void **state)
{
	char name[256], target[4096];
	struct stat status;

	(void)state;
	mounts_prepare(RANKS);
	close(mounts_folder(0, "a/folder").fd);
	folder_write(&mounts_stores[0], "file", "text", 4);
	assert_int_equal(symlinkat("../where", mounts_stores[0].fd, "a/link"),
			 0);
	start();
	check_status("file", "file", S_IFREG, "");
	check_status("a/folder", "folder", S_IFDIR, "");
	check_status("a/link", "link", S_IFLNK, "../where");
	assert_int_equal(peer_calls_status(1, 0, "nothing", &status, name,
					   target), -ENOENT);
	assert_int_equal(peer_calls_status(1, 0, "no/thing", &status, name,
					   target), -ENOENT);
	assert_int_equal(peer_calls_status(1, 0, "file/inside", &status, name,
					   target), -ENOTDIR);
}

/* ---- bytes --------------------------------------------------------------- */

static unsigned char *make_bytes(size_t size)
{
	unsigned char *bytes = malloc(size);
	size_t i;

	assert_non_null(bytes);
	for (i = 0; i < size; i++)
		bytes[i] = (unsigned char)(i * 7 + i / 4099);
	return bytes;
}

static void append(unsigned rank, const char *path, const char *text)
{
	int fd = openat(mounts_stores[rank].fd, path, O_WRONLY | O_APPEND);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static int digest(const char *path, const struct pin *pin, uint64_t hash[2])
{
	const struct file_range range = {
		.path = path, .pin = *pin, .exact = true,
	};
	struct peers *peers = mounts_peers(1);

	return peers->digest(peers, 0, &range, hash);
}

static void check_digest(const void *bytes, size_t size)
{
	const XXH128_hash_t wanted = XXH3_128bits(bytes, size);
	struct pin pin;
	uint64_t hash[2];

	folder_write(&mounts_stores[0], "file", bytes, size);
	pin = peer_calls_pin(0, "file");
	assert_int_equal(digest("file", &pin, hash), 0);
	assert_int_equal(hash[0], wanted.low64);
	assert_int_equal(hash[1], wanted.high64);
}

static void digests(void **state)
{
	const size_t limit = 16 * MIB;
	unsigned char *bytes = make_bytes(limit);
	struct pin pin;
	uint64_t hash[2] = { 1, 2 };

	(void)state;
	mounts_prepare(RANKS);
	start();
	check_digest(bytes, 0);
	check_digest(bytes, 1000);
	check_digest(bytes, 2 * MIB + 77);
	check_digest(bytes, limit);
	/* It was another file, then no file. */
	pin = peer_calls_pin(0, "file");
	folder_write(&mounts_stores[0], "file", bytes, limit - 1);
	assert_int_equal(digest("file", &pin, hash), -ESTALE);
	assert_int_equal(unlinkat(mounts_stores[0].fd, "file", 0), 0);
	assert_int_equal(digest("file", &pin, hash), -ESTALE);
	/* One more byte is too much. */
	folder_write(&mounts_stores[0], "large", bytes, limit);
	free(bytes);
	append(0, "large", "x");
	pin = peer_calls_pin(0, "large");
	assert_int_equal(pin.size, limit + 1);
	assert_int_equal(digest("large", &pin, hash), -E2BIG);
}

static int read_range(const char *path, const struct pin *pin, bool exact,
		      uint64_t offset, uint32_t size, char *data,
		      size_t *ret_got)
{
	const struct file_range range = {
		.path = path, .pin = *pin, .exact = exact, .offset = offset,
		.size = size,
	};
	struct peers *peers = mounts_peers(1);

	return peers->file(peers, 0, &range, data, ret_got);
}

/* What is read is @text, or nothing if it is NULL. */
static void check_range(const struct pin *pin, bool exact, uint64_t offset,
			uint32_t size, const char *text)
{
	char data[64] = "untouched";
	size_t got = 77;
	int error = read_range("file", pin, exact, offset, size, data, &got);

	if (!text) {
		assert_int_equal(error, -ESTALE);
		assert_string_equal(data, "untouched");
		return;
	}
	assert_int_equal(error, 0);
	assert_int_equal(got, strlen(text));
	assert_memory_equal(data, text, got);
}

static void ranges(void **state)
{
	const struct pin any = { .inode = 0 };
	struct pin pin, other;

	(void)state;
	mounts_prepare(RANKS);
	folder_write(&mounts_stores[0], "file", "0123456789", 10);
	start();
	pin = other = peer_calls_pin(0, "file");
	check_range(&pin, true, 0, 10, "0123456789");
	check_range(&pin, true, 3, 4, "3456");
	check_range(&pin, true, 3, 0, "");
	/* Only at the end it is less. */
	check_range(&pin, true, 8, 64, "89");
	check_range(&pin, true, 10, 1, "");
	check_range(&pin, true, 1 << 20, 64, "");
	other.size++;
	check_range(&other, true, 0, 10, NULL);
	check_range(&other, false, 0, 10, "0123456789");
	other.inode++;
	check_range(&other, false, 0, 10, NULL);
	check_range(&any, true, 5, 2, "56");
	/* It grows: another file for who wants that one, and the same. */
	append(0, "file", "+");
	check_range(&pin, true, 0, 10, NULL);
	check_range(&pin, false, 8, 64, "89+");
	/* Another one in its place, and none. */
	folder_write(&mounts_stores[0], "new", "9876543210", 10);
	assert_int_equal(renameat(mounts_stores[0].fd, "new",
				  mounts_stores[0].fd, "file"), 0);
	check_range(&pin, false, 0, 10, NULL);
	check_range(&any, false, 0, 3, "987");
	assert_int_equal(unlinkat(mounts_stores[0].fd, "file", 0), 0);
	check_range(&pin, false, 0, 10, NULL);
	check_range(&any, false, 0, 10, NULL);
}

/* A whole answer of a MiB, and all of a file by such parts. */
static void large_ranges(void **state)
{
	const size_t size = 3 * MIB + 12345;
	unsigned char *bytes = make_bytes(size);
	struct pin pin;
	size_t got = 0, at;
	char *data = malloc(MIB);

	(void)state;
	assert_non_null(data);
	mounts_prepare(RANKS);
	folder_write(&mounts_stores[0], "file", bytes, size);
	start();
	pin = peer_calls_pin(0, "file");
	for (at = 0; at < size; at += got) {
		assert_int_equal(read_range("file", &pin, true, at, MIB, data,
					    &got), 0);
		assert_int_equal(got, size - at < MIB ? size - at : MIB);
		assert_memory_equal(data, bytes + at, got);
	}
	cat_check(mounts_kernel(2), "file", bytes, size);
	free(data);
	free(bytes);
}

/* ---- nothing else -------------------------------------------------------- */

/* No service of rank 0 answers for this path. */
static void check_refused(const char *path)
{
	const struct pin any = { .inode = 0, .size = 6 };
	char data[64] = "untouched", name[256], target[4096];
	struct stat status;
	uint64_t hash[2];
	size_t got;
	char *names;

	assert_true(peer_calls_list(1, 0, PEERS_OWN, path, &names) < 0);
	assert_true(peer_calls_status(1, 0, path, &status, name, target) < 0);
	assert_true(digest(path, &any, hash) < 0);
	assert_true(read_range(path, &any, false, 0, 6, data, &got) < 0);
	assert_string_equal(data, "untouched");
}

/* There is a file "secret" in another folder, and one in the store: what is
 * named by a detour is not found either. */
static void paths_that_lead_out(void **state)
{
	static const char *const paths[] = {
		"..", "../secret", "/", "/etc/passwd", "inner/../secret",
		"./secret", ".", "inner/", "inner//secret", "inner/.",
		"out/secret", "up/secret", "inner/around/secret",
	};
	const struct pin any = { .inode = 0 };
	char outside[128], data[64], *names;
	size_t i, got;

	(void)state;
	mounts_prepare(RANKS);
	close(mounts_folder(0, "inner").fd);
	folder_write(&mounts_stores[0], "secret", "secret", 6);
	folder_write(&mounts_stores[2], "secret", "secret", 6);
	snprintf(outside, sizeof(outside), "%s/secret",
		 mounts_stores[2].path);
	assert_int_equal(symlinkat(mounts_stores[2].path, mounts_stores[0].fd,
				   "out"), 0);
	assert_int_equal(symlinkat(outside, mounts_stores[0].fd, "file"), 0);
	assert_int_equal(symlinkat("..", mounts_stores[0].fd, "up"), 0);
	assert_int_equal(symlinkat("../..", mounts_stores[0].fd,
				   "inner/around"), 0);
	start();
	for (i = 0; i < COUNT_OF(paths); i++)
		check_refused(paths[i]);
	/* Of links themselves it is said that they are there, and no more. */
	assert_true(peer_calls_list(1, 0, PEERS_OWN, "out", &names) < 0);
	assert_true(read_range("file", &any, false, 0, 6, data, &got) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(long_list, stop),
		cmocka_unit_test_teardown(other_lists, stop),
		cmocka_unit_test_teardown(remembered_list, stop),
		cmocka_unit_test_teardown(status_of_all_kinds, stop),
		cmocka_unit_test_teardown(digests, stop),
		cmocka_unit_test_teardown(ranges, stop),
		cmocka_unit_test_teardown(large_ranges, stop),
		cmocka_unit_test_teardown(paths_that_lead_out, stop),
	};

	return cmocka_run_group_tests_name("serve", tests, NULL, NULL);
}
