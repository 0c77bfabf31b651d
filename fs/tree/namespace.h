/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree that a mount shows: the store's own files, the views beside them,
 * and what can be done with each. Everything here is thread safe.
 *
 * @nowait says that the calling thread must not block: what would need the
 * store is then -EAGAIN, and the caller tries again from a thread of the
 * pool. Everything else is answered from memory.
 */
#ifndef FS_TREE_NAMESPACE_H
#define FS_TREE_NAMESPACE_H

#include "fs/tree/counters.h"
#include "fs/tree/inode_table.h"

#include "shard/read/source.h"
#include "shard/store/union.h"

#include <sys/queue.h>
#include <sys/statvfs.h>

struct handle;
struct listing;

struct namespace_options {
	uint64_t decoded_cache;	/* bytes of decoded items to keep */
	const char *hf_root; /* key below which hf/ finds the model; NULL:
				 * see view_group_root; outlives the namespace */
	const char *hf_assets;	/* folder of more files for hf/; NULL: none */
	bool ranks;		/* namespace_join follows */
};

/* Folders that are kept for other ranks, which the kernel may not know. */
enum { NAMESPACE_KEPT = 256 };

struct namespace {
	int root;		/* owned: the store's folder */
	int assets;		/* owned: of hf_assets; -1: none */
	const char *hf_root;	/* borrowed */
	struct peers *peers;	/* borrowed; NULL: one process */
	struct merger *merger;	/* owned; NULL likewise: the union */
	struct counters counters;
	/* What MNT/.ckptfs/NAME says, appended to @out; set once by main.
	 * False: there is no such file. */
	bool (*report)(void *context, const char *name, struct array *out);
	void *report_context;
	pthread_mutex_t kept_lock;
	struct folder *kept[NAMESPACE_KEPT];	/* guarded by kept_lock */
	unsigned kept_next;			/* likewise */
	bool in_memory;		/* the store is a tmpfs: never blocks */
	struct nodes nodes;
	struct decoded_cache *cache;	/* owned */
	/* What is open; guarded by the lock of the nodes. */
	LIST_HEAD(, handle) handles;
	LIST_HEAD(, listing) listings;
	/* When the mount point is inside of the store: its device, which is
	 * not entered. 0: it is not, or nothing is mounted yet. */
	_Atomic uint64_t own_device;
	/* Called, on a thread that may block, for each open file of a
	 * checkpoint that was retired: the kernel must drop its pages. Set
	 * once by the mount. */
	void (*drop_pages)(void *context, uint64_t inode);
	/* Called, on any thread, when the kernel should be asked to forget
	 * @count names of nodes_oldest: must not block. Likewise. */
	void (*drop_names)(void *context, unsigned count);
	void *drop_context;
};

/* The store at @path. Its own checkpoint, if it is one, is opened at once,
 * so that a refusal is seen. 0 or -errno; @ret_bad is the path that it is
 * about. */
int namespace_init(struct namespace *ns, const char *path,
		   const struct namespace_options *options,
		   const char **ret_bad);
/* Show the union of the stores of all ranks; @peers outlives the namespace,
 * and need not be ready. Before anything is asked for. 0 or -ENOMEM. */
int namespace_join(struct namespace *ns, struct peers *peers);
void namespace_finish(struct namespace *ns);

/* An inode as the kernel is told of it. */
struct found {
	struct stat status;	/* st_ino is the inode number */
	unsigned timeout_s;	/* of attributes and of the name */
};

/* One more lookup of what is found. -ENOENT, -ESTALE, -errno. */
int namespace_lookup(struct namespace *ns, uint64_t parent, const char *name,
		     bool nowait, struct found *ret_found);
void namespace_forget(struct namespace *ns, uint64_t inode, uint64_t count);
/* One more lookup of an inode that is known, to be forgotten. */
void namespace_hold(struct namespace *ns, uint64_t inode);
int namespace_status(struct namespace *ns, uint64_t inode, bool nowait,
		     struct found *ret_found);
/* The target of a symbolic link, appended to @out and terminated. */
int namespace_link(struct namespace *ns, uint64_t inode, bool nowait,
		   struct array *out);
/* As view_attribute and view_attributes; stored files have none. */
int namespace_attribute(struct namespace *ns, uint64_t inode, const char *name,
			struct array *out);
int namespace_attributes(struct namespace *ns, uint64_t inode,
			 struct array *out);
int namespace_statfs(struct namespace *ns, struct statvfs *ret_status);

/* ---- checkpoints that come and go (look.c) ------------------------------- */

/*
 * Look at the store again for the checkpoint in @folder, at most once a
 * second unless it is known to be stale. May block.
 */
void namespace_look(struct namespace *ns, struct folder *folder);
/* At once, since somebody knows of something else. */
void namespace_look_again(struct namespace *ns, struct folder *folder);

/* ---- open files (handle.c) ----------------------------------------------- */

struct opened {
	struct handle *handle;
	bool keep_cache;	/* nothing changes under this inode */
	bool direct;		/* no page cache: reads must be exact */
};

/* -ESTALE, -EOPNOTSUPP, -EISDIR, -errno. */
int namespace_open(struct namespace *ns, uint64_t inode, bool nowait,
		   struct opened *ret_opened);
/* The handle ends with the last of those who opened it or hold it. */
void namespace_close(struct namespace *ns, struct handle *handle);
void handle_hold(struct handle *handle);

/* Bytes at @offset into @reply, which takes loans, until it is released; fewer
 * at the end of the file. 0 or -errno, -EAGAIN if reply->nowait. */
int namespace_read(struct namespace *ns, struct handle *handle, uint64_t size,
		   uint64_t offset, struct reply *reply);

/* What a log line about @handle starts with, terminated, in @text. */
void handle_describe(const struct handle *handle, char *text, size_t size);

/* ---- open folders (listing.c) -------------------------------------------- */

struct listed {
	char name[256];
	uint64_t inode;		/* 0: not known */
	mode_t type;		/* S_IFDIR, ...; 0: not known */
	bool has_status;	/* `status` and `live` are filled in */
	struct stat status;
	struct live *live;	/* to hold when the kernel takes the entry */
	uint64_t next;		/* position behind this entry */
};

int namespace_open_listing(struct namespace *ns, uint64_t inode, bool nowait,
			   struct listing **ret_listing);
/* The listing ends with the last of those who opened it or hold it. */
void namespace_close_listing(struct namespace *ns, struct listing *listing);
void listing_hold(struct listing *listing);
bool listing_is_immutable(const struct listing *listing);

/* The entry at @position, 0 the first. 0, -ENOENT at the end, -EAGAIN, or
 * -errno. */
int listing_next(struct listing *listing, uint64_t position, bool nowait,
		 struct listed *ret_listed);

/* ---- for listing.c ------------------------------------------------------- */

/* Attributes of a file of a view. -ENOENT, -EAGAIN, -errno. */
int namespace_file_status(struct live *live, const struct view_file *file,
			  bool nowait, struct stat *ret_status);

/* What stays as it is may stay in the kernel's caches; what does not is asked
 * for again after a second. */
enum { TIMEOUT_CONST_S = 86400, TIMEOUT_STORE_S = 1 };

#endif
