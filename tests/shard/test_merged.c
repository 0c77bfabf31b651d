/* SPDX-License-Identifier: Apache-2.0 */
/* The union of what ranks have, that say what a test tells them to. */
#include "support/test.h"
#include "support/folder.h"

#include "shard/limits.h"
#include "shard/merged.h"
#include "shard/store_list.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RANKS = 4, FILES = 8, REAL = 4711 };

/* What a rank has in each folder. */
struct file {
	const char *name, *target;
	mode_t mode;
	uint64_t size, inode, content;	/* content: what its hash is */
};

static struct {
	struct file files[FILES];
	unsigned count;
	int error;		/* of lists */
	int digest_error;
	bool remembers;		/* what others have */
	atomic_uint lists, digests, timeout_ms, recalls;
} fakes[RANKS];

static struct peers peers;
static int stores[RANKS];
static struct merger *merger;
static struct merged *merged;
static char said[4][512];
static unsigned said_count;
static uint64_t real_hash[2];	/* of files whose content is REAL */

/* ---- fakes --------------------------------------------------------------- */

static int wait_ready(struct peers *p)
{
	(void)p;
	return 0;
}

static struct stat status_of(unsigned rank, const struct file *file)
{
	return (struct stat){
		.st_dev = 10 + rank, .st_ino = file->inode ? file->inode :
						100 * rank + 1,
		.st_mode = file->mode, .st_size = (off_t)file->size,
		.st_nlink = 1, .st_mtim = { 5, 0 }, .st_ctim = { 5, 0 },
	};
}

static int list_one(unsigned rank, unsigned timeout_ms, struct array *out)
{
	unsigned i;

	fakes[rank].lists++;
	fakes[rank].timeout_ms = timeout_ms;
	for (i = 0; i < fakes[rank].count; i++) {
		const struct file *file = &fakes[rank].files[i];
		const struct stat status = status_of(rank, file);
		const char *target = file->target ? file->target : "";

		/* What has come before it fails, as well. */
		assert_int_equal(stored_entry_append(out, file->name, &status,
						     target, strlen(target)),
				 0);
	}
	return fakes[rank].error;
}

/* What @fakes[rank] remembers of rank @of: a file of its own number. */
static int recall_one(unsigned rank, unsigned of, struct array *out)
{
	const struct file file = { .name = "remembered",
				   .mode = S_IFREG | 0644, .size = rank };
	const struct stat status = status_of(of, &file);

	fakes[rank].recalls++;
	if (!fakes[rank].remembers)
		return -ENODATA;
	return stored_entry_append(out, file.name, &status, "", 0);
}

static void list(struct peers *p, uint32_t of, const char *path,
		 struct peer_list *lists, unsigned count)
{
	unsigned i;

	(void)p;
	(void)path;
	for (i = 0; i < count; i++)
		lists[i].error = of == PEERS_OWN ?
			list_one(lists[i].rank, lists[i].timeout_ms,
				 lists[i].out) :
			recall_one(lists[i].rank, of, lists[i].out);
}

static int digest(struct peers *p, unsigned rank,
		  const struct file_range *range, uint64_t ret_hash[2])
{
	unsigned i;

	(void)p;
	assert_true(range->exact);
	fakes[rank].digests++;
	for (i = 0; i < fakes[rank].count; i++) {
		const struct file *file = &fakes[rank].files[i];
		const struct stat status = status_of(rank, file);
		const struct pin pin = pin_from_stat(&status);
		const char *slash = strrchr(range->path, '/');

		if (strcmp(slash ? slash + 1 : range->path, file->name) != 0)
			continue;
		ret_hash[0] = ret_hash[1] = file->content;
		if (file->content == REAL)
			memcpy(ret_hash, real_hash, sizeof(real_hash));
		return fakes[rank].digest_error ? fakes[rank].digest_error :
		       pin_equal(&pin, &range->pin) ? 0 : -ESTALE;
	}
	return -ESTALE;
}

static void say(void *context, const char *line)
{
	assert_ptr_equal(context, &peers);
	assert_true(said_count < COUNT_OF(said));
	snprintf(said[said_count++], sizeof(said[0]), "%s", line);
}

static void has(unsigned rank, const char *name, mode_t mode, uint64_t size,
		uint64_t content)
{
	assert_true(fakes[rank].count < FILES);
	fakes[rank].files[fakes[rank].count++] = (struct file){
		.name = name, .mode = mode, .size = size, .content = content,
	};
}

static int setup(void **state)
{
	unsigned i;

	(void)state;
	memset(fakes, 0, sizeof(fakes));
	said_count = 0;
	for (i = 0; i < RANKS; i++)
		stores[i] = -1;
	peers = (struct peers){
		.rank = 3, .count = RANKS, .stores = stores,
		.wait_ready = wait_ready, .list = list, .digest = digest,
	};
	merger = merger_create(&peers, say, &peers);
	assert_non_null(merger);
	merged = NULL;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	merged_put(merged);
	merger_destroy(merger);
	return 0;
}

/* Look again, at once. */
static void look(void)
{
	merged_put(merged);
	merged = NULL;
	assert_int_equal(merger_get(merger, "folder", true, &merged), 0);
}

static const struct merged_entry *check(const char *name, unsigned rank,
					unsigned near)
{
	const struct merged_entry *entry = merged_find(merged, name);

	assert_non_null(entry);
	assert_string_equal(entry->name, name);
	assert_int_equal(entry->rank, rank);
	assert_int_equal(entry->near, near);
	return entry;
}

/* ---- rules --------------------------------------------------------------- */

static void a_folder_that_nobody_has(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < RANKS; i++)
		fakes[i].error = i % 2 ? -ENOENT : -ENOTDIR;
	look();
	assert_false(merged->found);
	assert_int_equal(merged->count, 0);
	assert_null(merged_find(merged, "a"));
	/* Empty is not missing. */
	fakes[2].error = 0;
	look();
	assert_true(merged->found);
	assert_int_equal(merged->count, 0);
}

static void all_of_all(void **state)
{
	unsigned i;

	(void)state;
	has(0, "b", S_IFREG, 1, 1);
	has(1, "a", S_IFREG, 1, 1);
	has(1, "d", S_IFREG, 1, 1);
	has(3, "c", S_IFREG, 1, 1);
	look();
	assert_int_equal(merged->count, 4);
	check("a", 1, 1);
	check("b", 0, 0);
	check("c", 3, 3);
	check("d", 1, 1);
	for (i = 1; i < merged->count; i++)
		assert_true(strcmp(merged->entries[i - 1].name,
				   merged->entries[i].name) < 0);
	assert_null(merged_find(merged, ""));
	assert_null(merged_find(merged, "e"));
	assert_int_equal(said_count, 0);
}

static void the_same_file(void **state)
{
	(void)state;
	has(2, "a", S_IFREG, 10, 77);
	has(0, "a", S_IFREG, 10, 77);
	look();
	assert_int_equal(merged->count, 1);
	check("a", 0, 0);
	assert_int_equal(said_count, 0);
	/* Found out once. */
	assert_int_equal(fakes[0].digests, 1);
	look();
	assert_int_equal(fakes[0].digests, 1);
	assert_int_equal(fakes[2].digests, 1);
}

/* That of a file system which both have: nobody reads it. */
static void one_file_seen_twice(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, 10, 1);
	has(1, "a", S_IFREG, 10, 2);
	fakes[0].files[0].inode = fakes[1].files[0].inode = 5;
	look();
	check("a", 0, 0);
	assert_int_equal(fakes[0].digests + fakes[1].digests, 0);
	assert_int_equal(said_count, 0);
}

static void the_lowest_rank_wins(void **state)
{
	(void)state;
	has(3, "a", S_IFREG, 10, 1);
	has(1, "a", S_IFREG, 10, 2);
	has(2, "b", S_IFREG, 10, 3);
	has(3, "b", S_IFREG, 11, 3);
	look();
	assert_int_equal(check("a", 1, 1)->stored.pin.device, 11);
	assert_int_equal(check("b", 2, 2)->stored.pin.size, 10);
	assert_int_equal(said_count, 2);
	assert_string_equal(said[0], "folder/a: differs between rank 1 and "
			    "rank 3: that of rank 1 is used");
	assert_non_null(strstr(said[1], "folder/b: differs between rank 2"));
	/* Said once, and of another size nobody needs a hash. */
	look();
	assert_int_equal(said_count, 2);
	assert_int_equal(fakes[2].digests, 0);
	/* It is another one now. */
	fakes[3].files[0].size = 12;
	look();
	assert_int_equal(said_count, 3);
}

static void too_large_to_be_compared(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, LIMIT_COMPARE_SIZE + 1, 1);
	has(1, "a", S_IFREG, LIMIT_COMPARE_SIZE + 1, 1);
	has(0, "b", S_IFREG, LIMIT_COMPARE_SIZE, 1);
	has(1, "b", S_IFREG, LIMIT_COMPARE_SIZE, 1);
	look();
	check("a", 0, 0);
	assert_int_equal(said_count, 1);
	assert_non_null(strstr(said[0], "too large"));
	assert_int_equal(fakes[0].digests, 1);
}

static void files_and_folders(void **state)
{
	(void)state;
	has(0, "a", S_IFDIR, 0, 0);
	has(1, "a", S_IFREG, 5, 0);
	has(1, "b", S_IFREG, 5, 0);
	has(2, "b", S_IFDIR, 0, 0);
	has(2, "c", S_IFDIR, 0, 0);
	has(3, "c", S_IFDIR, 0, 0);
	look();
	assert_int_equal(merged->count, 3);
	assert_true(S_ISDIR(check("a", 0, 0)->stored.mode));
	assert_true(S_ISREG(check("b", 1, 1)->stored.mode));
	check("c", 2, 2);
	assert_int_equal(said_count, 2);
}

static void links(void **state)
{
	const struct merged_entry *entry;

	(void)state;
	has(1, "a", S_IFLNK, 6, 0);
	fakes[1].files[0].target = "target";
	has(2, "a", S_IFLNK, 5, 0);
	fakes[2].files[0].target = "other";
	look();
	entry = check("a", 1, 1);
	assert_int_equal(entry->target_size, 6);
	assert_string_equal(entry->target, "target");
	assert_int_equal(said_count, 0);
}

/* ---- ranks that do not answer -------------------------------------------- */

static void what_it_had_at_the_last_look(void **state)
{
	(void)state;
	has(1, "a", S_IFREG, 10, 1);
	look();
	assert_int_equal(fakes[1].timeout_ms, 0);
	fakes[1].error = -EIO;
	look();
	check("a", 1, 1);
	assert_true(merged->found);
	/* It is not waited for that long. */
	assert_int_equal(fakes[1].timeout_ms, 2000);
	look();
	check("a", 1, 1);
	/* It says that there is nothing. */
	fakes[1].error = -ENOENT;
	look();
	assert_int_equal(merged->count, 0);
	fakes[1].error = -EIO;
	look();
	assert_int_equal(merged->count, 0);
	/* It is back. */
	fakes[1].error = 0;
	look();
	check("a", 1, 1);
}

static void who_never_answered(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, 10, 1);
	has(1, "b", S_IFREG, 10, 1);
	fakes[1].error = -EIO;
	look();
	assert_int_equal(merged->count, 1);
	check("a", 0, 0);
	fakes[1].error = 0;
	look();
	assert_int_equal(merged->count, 2);
}

/* Somebody else has looked before: the lowest of them counts. */
static void what_others_remember(void **state)
{
	const struct merged_entry *entry;

	(void)state;
	has(0, "a", S_IFREG, 10, 1);
	fakes[1].error = -EIO;
	fakes[2].remembers = true;
	fakes[RANKS - 1].remembers = true;
	look();
	entry = check("remembered", 1, 1);
	assert_int_equal(entry->stored.pin.size, 2);
	assert_int_equal(entry->stored.pin.device, 11);
	assert_true(merged->known[1]);
	/* From then on it is known, until its rank says something else. */
	fakes[2].recalls = 0;
	look();
	check("remembered", 1, 1);
	assert_int_equal(fakes[2].recalls, 0);
	fakes[1].error = 0;
	look();
	assert_int_equal(merged->count, 1);
}

/* And what this one remembers. */
static void asked_for_what_it_remembers(void **state)
{
	struct array out = { .data = NULL };
	struct stored stored;
	size_t position = 0;

	(void)state;
	has(1, "a", S_IFREG, 10, 1);
	assert_int_equal(merger_recall(merger, "folder", 1, &out), -ENODATA);
	fakes[0].error = -EIO;
	look();
	assert_int_equal(merger_recall(merger, "folder", 0, &out), -ENODATA);
	assert_int_equal(merger_recall(merger, "other", 1, &out), -ENODATA);
	assert_int_equal(merger_recall(merger, "folder", RANKS, &out),
			 -ENODATA);
	assert_int_equal(merger_recall(merger, "folder", 2, &out), 0);
	assert_int_equal(out.size, 0);
	assert_int_equal(merger_recall(merger, "folder", 1, &out), 0);
	assert_true(stored_entry_next(out.data, out.size, &position, &stored));
	assert_int_equal(position, out.size);
	assert_memory_equal(stored.name, "a", 1);
	array_finish(&out);
}

static void this_rank_is_ending(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, 10, 1);
	look();
	fakes[1].error = -ESHUTDOWN;
	merged_put(merged);
	merged = NULL;
	assert_int_equal(merger_get(merger, "folder", true, &merged),
			 -ESHUTDOWN);
	assert_null(merged);
}

/* Who does not say what is in a file does not say that it is another. */
static void a_digest_that_does_not_come(void **state)
{
	(void)state;
	has(0, "a", S_IFREG, 10, 7);
	has(3, "a", S_IFREG, 10, 7);
	fakes[0].digest_error = -EIO;
	look();
	check("a", 0, 0);
	assert_int_equal(said_count, 0);
	fakes[0].digest_error = 0;
	look();
	check("a", 0, 3);
	assert_int_equal(said_count, 0);
}

/* ---- near ---------------------------------------------------------------- */

/* The own copy is read, whoever it counts as. */
static void the_own_copy(void **state)
{
	const struct merged_entry *entry;

	(void)state;
	has(0, "a", S_IFREG, 10, 7);
	has(2, "a", S_IFREG, 10, 7);
	has(3, "a", S_IFREG, 10, 7);
	has(0, "b", S_IFREG, 10, 7);
	has(3, "b", S_IFREG, 10, 8);
	look();
	entry = check("a", 0, 3);
	assert_int_equal(entry->stored.pin.device, 10);
	assert_int_equal(entry->near_pin.device, 13);
	check("b", 0, 0);
}

/* Else that of a rank whose store can be opened from here. */
static void a_copy_on_this_host(void **state)
{
	struct folder folder;
	int fd;

	(void)state;
	folder_make(&folder);
	assert_int_equal(mkdirat(folder.fd, "folder", 0755), 0);
	folder_write(&folder, "folder/a", "0123456789", 10);
	folder_write(&folder, "folder/b", "9876543210", 10);
	fd = openat(folder.fd, "folder/a", O_RDONLY | O_CLOEXEC);
	assert_int_equal(store_digest(fd, 10, real_hash), 0);
	close(fd);
	stores[1] = stores[2] = folder.fd;
	has(0, "a", S_IFREG, 10, REAL);
	has(0, "b", S_IFREG, 10, REAL);
	look();
	check("a", 0, 1);
	/* The content of rank 0's is another. */
	check("b", 0, 0);
	assert_int_equal(said_count, 2);
	assert_int_equal(fakes[1].lists, 0);
	/* It is gone from rank 1's. */
	stores[1] = -1;
	look();
	check("a", 0, 2);
	folder_remove(&folder);
}

/* ---- freshness ----------------------------------------------------------- */

static void what_was_just_looked_at(void **state)
{
	const struct timespec over = { 1, 50000000 };
	struct merged *again;

	(void)state;
	has(0, "a", S_IFREG, 10, 7);
	look();
	assert_int_equal(fakes[0].lists, 1);
	assert_int_equal(merger_get(merger, "folder", false, &again), 0);
	assert_ptr_equal(again, merged);
	assert_int_equal(fakes[0].lists, 1);
	merged_put(again);
	nanosleep(&over, NULL);
	assert_int_equal(merger_get(merger, "folder", false, &again), 0);
	assert_ptr_not_equal(again, merged);
	assert_int_equal(fakes[0].lists, 2);
	merged_put(again);
	/* The old one stays as it was. */
	check("a", 0, 0);
	/* Another folder is another one. */
	assert_int_equal(merger_get(merger, "", false, &again), 0);
	assert_int_equal(fakes[0].lists, 3);
	merged_put(again);
}

static void finding(void **state)
{
	const struct merged_entry *entry;
	struct merged *at = NULL;

	(void)state;
	has(0, "a", S_IFREG, 10, 7);
	assert_int_equal(merger_find(merger, "folder/a", &at, &entry), 0);
	assert_string_equal(entry->name, "a");
	assert_string_equal(at->path, "folder");
	assert_int_equal(merger_find(merger, "folder/b", &at, &entry),
			 -ENOENT);
	assert_int_equal(fakes[0].lists, 1);
	assert_int_equal(merger_find(merger, "a", &at, &entry), 0);
	assert_string_equal(at->path, "");
	assert_int_equal(fakes[0].lists, 2);
	merged_put(at);
}

static void *look_often(void *wrong)
{
	struct merged *mine;
	unsigned i;

	for (i = 0; i < 300; i++) {
		if (merger_get(merger, i % 2 ? "x" : "folder", i % 3 == 0,
			       &mine)) {
			*(bool *)wrong = true;
			return NULL;
		}
		*(bool *)wrong |= mine->count != 1 ||
				  !merged_find(mine, "a");
		merged_put(mine);
	}
	return NULL;
}

static void many_threads(void **state)
{
	pthread_t threads[4];
	bool wrong[4] = { false };
	unsigned i;

	(void)state;
	peers.count = 1;
	has(0, "a", S_IFREG, 10, 7);
	for (i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, look_often,
						&wrong[i]), 0);
	for (i = 0; i < COUNT_OF(threads); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(wrong[i]);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_folder_that_nobody_has),
		TEST(all_of_all),
		TEST(the_same_file),
		TEST(one_file_seen_twice),
		TEST(the_lowest_rank_wins),
		TEST(too_large_to_be_compared),
		TEST(files_and_folders),
		TEST(links),
		TEST(what_it_had_at_the_last_look),
		TEST(who_never_answered),
		TEST(what_others_remember),
		TEST(asked_for_what_it_remembers),
		TEST(this_rank_is_ending),
		TEST(a_digest_that_does_not_come),
		TEST(the_own_copy),
		TEST(a_copy_on_this_host),
		TEST(what_was_just_looked_at),
		TEST(finding),
		TEST(many_threads),
	};

	return cmocka_run_group_tests_name("merged", tests, NULL, NULL);
}
