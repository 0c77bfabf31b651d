/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a file is at some moment: enough to tell later, without reading it,
 * whether its bytes are still the same, as far as a file system can tell.
 */
#ifndef SHARD_BASE_PIN_H
#define SHARD_BASE_PIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* Travels between ranks as it is. */
struct pin {
	uint64_t device, inode;	/* inode 0: there was no such file */
	uint64_t size;		/* bytes */
	int64_t mtime, ctime;	/* ns since the epoch */
	uint32_t mode, uid, gid, links;
};

struct pin pin_from_stat(const struct stat *status);
/* As stat() of it would be, but for what a pin does not have. */
void pin_status(const struct pin *pin, struct stat *ret_status);

/* Nothing of it has changed. */
bool pin_equal(const struct pin *a, const struct pin *b);

/* Is it the same file, of whatever bytes? */
bool pin_same_file(const struct pin *a, const struct pin *b);

/*
 * Are the bytes those that they were at @before? Its ctime may be later if what
 * else counts for that has changed: the number of links, the mode, the owner.
 * It is all that tells of a file that was rewritten, and whose mtime was set
 * back, so that a later ctime alone means other bytes.
 */
bool pin_same_bytes(const struct pin *before, const struct pin *now);

#endif
