/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/pin.h"

_Static_assert(sizeof(struct pin) == 5 * 8 + 4 * 4, "a pin travels");

static const int64_t second = INT64_C(1000000000);

struct pin pin_from_stat(const struct stat *status)
{
	return (struct pin){
		.device = status->st_dev,
		.inode = status->st_ino,
		.size = (uint64_t)status->st_size,
		.mtime = status->st_mtim.tv_sec * second +
			 status->st_mtim.tv_nsec,
		.ctime = status->st_ctim.tv_sec * second +
			 status->st_ctim.tv_nsec,
		.mode = status->st_mode,
		.uid = status->st_uid,
		.gid = status->st_gid,
		.links = (uint32_t)status->st_nlink,
	};
}

/* The nanoseconds count up, also before 1970. */
static struct timespec to_time(int64_t ns)
{
	int64_t part = ns % second;

	return (struct timespec){ ns / second - (part < 0),
				  part < 0 ? part + second : part };
}

void pin_status(const struct pin *pin, struct stat *ret_status)
{
	*ret_status = (struct stat){
		.st_dev = pin->device,
		.st_ino = pin->inode,
		.st_mode = pin->mode,
		.st_uid = pin->uid,
		.st_gid = pin->gid,
		.st_nlink = pin->links,
		.st_size = (off_t)pin->size,
		.st_blocks = (blkcnt_t)((pin->size + 511) / 512),
		.st_blksize = 4096,
		.st_mtim = to_time(pin->mtime),
		.st_ctim = to_time(pin->ctime),
	};
	ret_status->st_atim = ret_status->st_mtim;
}

bool pin_same_file(const struct pin *a, const struct pin *b)
{
	return a->device == b->device && a->inode == b->inode;
}

/* But for the ctime, and what explains it. */
static bool same_content(const struct pin *a, const struct pin *b)
{
	return pin_same_file(a, b) && a->size == b->size &&
	       a->mtime == b->mtime;
}

static bool same_facts(const struct pin *a, const struct pin *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid &&
	       a->links == b->links;
}

bool pin_equal(const struct pin *a, const struct pin *b)
{
	return same_content(a, b) && a->ctime == b->ctime && same_facts(a, b);
}

bool pin_same_bytes(const struct pin *before, const struct pin *now)
{
	return same_content(before, now) &&
	       (before->ctime == now->ctime || !same_facts(before, now));
}
