/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other ranks, as seen from here: what can be asked of them, which comm/
 * implements.
 *
 * Calls block and are thread safe. Paths are below a rank's
 * store, "" is the store itself; whoever answers resolves them there and
 * never leaves it.
 *
 * errno vocabulary of calls, besides that of source.h:
 *	EIO		the rank did not answer in time, or is known not to
 *	ESHUTDOWN	this rank is ending
 *	EPROTO		the answer makes no sense
 */
#ifndef SHARD_STORE_PEERS_H
#define SHARD_STORE_PEERS_H

#include "shard/base/array.h"
#include "shard/read/source.h"
#include "shard/store/folder_entry.h"
#include "shard/store/store.h"

#include <stdatomic.h>
#include <sys/stat.h>

/* A range of a stored file. */
struct file_range {
	uint64_t hold;		/* of peers->hold_file; 0, or if that rank does
				 * not know it any more: by its path */
	const char *path;
	struct pin pin;		/* it must have; inode 0: whatever it is */
	bool exact;		/* all of the pin counts, else device and inode
				 * only: the file may be growing */
	uint64_t offset;	/* bytes */
	uint32_t size;		/* bytes, at most LIMIT_READ_SIZE */
};

enum peer_state {
	PEER_STARTING,		/* the ranks have not met yet */
	PEER_SELF,
	PEER_UP,
	PEER_SUSPECT,		/* did not answer in time; asked again and
				 * again in the background */
	PEER_LOST,		/* its process is gone */
	PEER_LEFT,		/* it has said goodbye */
};

struct peer_info {
	enum peer_state state;
	char host[64];
	int32_t pid;
	bool direct;		/* its store can be opened from here */
};

/* A list is of the store of each who is asked, or of this rank's, which does
 * not answer, as they remember it. */
#define PEERS_OWN UINT32_MAX

/* One rank's answer. */
struct peer_list {
	unsigned rank;
	unsigned timeout_ms;	/* how long at most; 0: as long as the rank
				 * answers pings */
	struct array *out;	/* gets lines of struct stored_entry, sorted */
	int error;		/* 0; -ENOENT, -ENOTDIR: no such folder;
				 * -ENODATA: not remembered */
};

struct peers {
	unsigned rank, count;	/* const */
	/* Folder of the store of each rank: open descriptors, of this rank and
	 * of those on the same host; -1: it is asked. Const once ready; this
	 * rank's from the start. */
	int *stores;

	/* Wait until all ranks have met. 0, or -ESHUTDOWN. */
	int (*wait_ready)(struct peers *peers);
	bool (*is_ready)(struct peers *peers);
	void (*info)(struct peers *peers, unsigned rank,
		     struct peer_info *ret_info);
	/* Find out, in the background, whether all are still there. */
	void (*probe)(struct peers *peers);

	/* What each of @count ranks has in the folder @path, or what it
	 * remembers that rank @of had: all are asked at once. Each has its
	 * own error. */
	void (*list)(struct peers *peers, uint32_t of, const char *path,
		     struct peer_list *lists, unsigned count);
	/* One file or folder, itself: one struct stored_entry. -ENOENT. */
	int (*status)(struct peers *peers, unsigned rank, const char *path,
		      struct array *out);
	/* XXH3-128 of a file's content. -ESTALE: not what @range->pin says. */
	int (*digest)(struct peers *peers, unsigned rank,
		      const struct file_range *range, uint64_t ret_hash[2]);
	/* Fewer bytes only at the end of the file. -ESTALE likewise. */
	int (*file)(struct peers *peers, unsigned rank,
		    const struct file_range *range, void *buffer,
		    size_t *ret_size);
	/*
	 * Keep a file of @rank open, whatever becomes of its name: that at
	 * @path, if it has the bytes of @pin (inode 0: whatever it is). @pin
	 * becomes that of now. -ESTALE likewise; -EMFILE: no more can be kept.
	 */
	int (*hold_file)(struct peers *peers, unsigned rank, const char *path,
			 struct pin *pin, uint64_t *ret_hold);
	/* What it is now. -ESTALE: it is not kept. */
	int (*held_status)(struct peers *peers, unsigned rank, uint64_t hold,
			   struct pin *ret_pin);
	/* Never blocks. */
	void (*release)(struct peers *peers, unsigned rank, uint64_t hold);
	/*
	 * The catalog that is wanted, which is checked, from the ranks above
	 * this one in the binomial tree; or, if it is to be kept already, from
	 * any that has it. The caller puts it. -ESTALE: no such one there (yet);
	 * -errno.
	 */
	int (*catalog)(struct peers *peers, const struct catalog_wanted *wanted,
		       struct catalog **ret_catalog);
	/* Does this rank make catalogs itself: is it the lowest that lives? */
	bool (*is_builder)(struct peers *peers);

	/* A source that reads the shards of other ranks from them, and all
	 * else from @below; see comm/source_peer.h. NULL: no memory. */
	struct source *(*source)(struct peers *peers,
				 const struct shard_files *files,
				 struct source *below);
};

#endif
