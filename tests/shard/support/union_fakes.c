/* SPDX-License-Identifier: Apache-2.0 */
#include "support/union_fakes.h"

#include "support/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct fake_rank fakes[RANKS];
struct peers peers;
int stores[RANKS];
struct union_folders *folders;
struct union_folder *found;
char said[SAID_MAX][512];
unsigned said_count;
uint64_t real_hash[2];

static int wait_ready(struct peers *p)
{
	(void)p;
	return 0;
}

static struct stat status_of(unsigned rank, const struct fake_file *file)
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
		const struct fake_file *file = &fakes[rank].files[i];
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
	const struct fake_file file = { .name = "remembered",
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
		const struct fake_file *file = &fakes[rank].files[i];
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

void say(void *context, const char *line)
{
	assert_ptr_equal(context, &peers);
	assert_true(said_count < COUNT_OF(said));
	snprintf(said[said_count++], sizeof(said[0]), "%s", line);
}

void has(unsigned rank, const char *name, mode_t mode, uint64_t size,
	 uint64_t content)
{
	assert_true(fakes[rank].count < FILES);
	fakes[rank].files[fakes[rank].count++] = (struct fake_file){
		.name = name, .mode = mode, .size = size, .content = content,
	};
}

void put(struct union_folder *folder)
{
	if (folder)
		store_list_put(&folder->list);
}

int union_setup(void **state)
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
	folders = union_folders_create(&peers, say, &peers);
	assert_non_null(folders);
	found = NULL;
	return 0;
}

int union_teardown(void **state)
{
	(void)state;
	put(found);
	union_folders_destroy(folders);
	return 0;
}

void look(void)
{
	put(found);
	found = NULL;
	assert_int_equal(union_folders_get(folders, "folder", true, &found), 0);
}

const struct store_entry *check(const char *name, unsigned rank,
				 unsigned near)
{
	const struct store_entry *entry = store_list_find(&found->list, name);

	assert_non_null(entry);
	assert_string_equal(entry->name, name);
	assert_int_equal(entry->owner, rank);
	if (S_ISREG(entry->pin.mode))
		assert_int_equal(entry->replicas[0].rank, near);
	else
		assert_int_equal(entry->replica_count, 0);
	return entry;
}
