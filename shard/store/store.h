/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores: what lies below a folder of this machine (folder_store.h), or what
 * the stores of all ranks have together (union_store.h). Who uses one never asks
 * which it is.
 *
 * Paths are relative, to the top of the store or to a folder that is open, with
 * a slash between their parts; "" is that folder itself, which is never left,
 * also not through links. Everything is thread safe; what may block is said to.
 */
#ifndef SHARD_STORE_STORE_H
#define SHARD_STORE_STORE_H

#include "shard/base/array.h"
#include "shard/base/io.h"
#include "shard/catalog/catalog.h"
#include "shard/read/placement.h"
#include "shard/read/source.h"

#include <stdatomic.h>
#include <sys/statvfs.h>

struct store;

/* ---- folders ------------------------------------------------------------- */

/* What a folder has under a name, itself and not what a link leads to. */
struct store_entry {
	const char *name, *target;	/* borrowed from the list; the target of
					 * a link, "" of all else */
	bool known;			/* else of its pin only the type in the
					 * mode, 0 if not even that, is known */
	struct pin pin;
	uint32_t owner;			/* the rank whose it is */
	uint32_t replica_count;
	const struct replica *replicas;	/* borrowed likewise; of a file, the
					 * nearest first; NULL: only here */
	bool has_own;			/* behind them stands this rank's, which
					 * is not known to be equal */
};

/* Immutable, reference counted. */
struct store_list {
	_Atomic unsigned references;
	size_t count;
	struct store_entry *entries;	/* owned; sorted by name */
	char *names;			/* owned: what the entries borrow */
	void (*destroy)(struct store_list *list); /* frees all of it */
};

/* NULL is fine. */
void store_list_put(struct store_list *list);
struct store_list *store_list_get(struct store_list *list);
/* NULL: there is none of that name. */
const struct store_entry *store_list_find(const struct store_list *list,
					  const char *name);

/* A folder, open: it stays what it is, whatever becomes of its name. Reference
 * counted. */
struct store_folder {
	_Atomic unsigned references;
	struct store *store;	/* borrowed */
	char *path;		/* owned; from the top, when it was opened */
	int *fds;		/* owned: of each rank, that folder if it can be
				 * opened here; -1 */
	/* Of a union: has it lost its name, and when was that looked at? */
	atomic_bool moved;
	_Atomic uint64_t looked_ms;
};

/* Its descriptors are -1. NULL: no memory. */
struct store_folder *store_folder_create(struct store *store,
					 const char *path);
struct store_folder *store_folder_get(struct store_folder *folder);
/* The last one closes it. NULL is fine. */
void store_folder_put(struct store_folder *folder);
/* Is it what rank @owner has of this status, as far as can be told here? */
bool store_folder_is(const struct store_folder *folder, unsigned owner,
		     const struct stat *status);

/* Where a path starts, and the path. */
struct store_path {
	struct store_folder *at;	/* borrowed; NULL: the top */
	const char *text;
};

/* The path @name of @folder. */
static inline struct store_path store_path_in(struct store_folder *folder,
					      const char *name)
{
	return (struct store_path){ folder, name };
}

/* ---- files --------------------------------------------------------------- */

/* A regular file, open: it is read until it is closed, whatever becomes of its
 * name. */
struct stored_file {
	struct pin pin;		/* when it was opened; of the owner's copy */
	uint32_t rank;		/* who is read from */
	/* Fill @reply from @offset on, fewer bytes at the end of the file. 0;
	 * -ESTALE when @exact, and its bytes are not those of the pin any more;
	 * -EAGAIN as the reply says; -errno. */
	int (*read)(struct stored_file *file, uint64_t offset, bool exact,
		    struct reply *reply);
	/* As it is now, and -ESTALE likewise. May block. */
	int (*status)(struct stored_file *file, bool exact,
		      struct stat *ret_status);
	void (*close)(struct stored_file *file);
};

/* All of it as bytes to parse; what reading gave goes to @failed, see struct
 * input. Borrows @file. May block. */
struct input stored_file_input(struct stored_file *file, int *failed);

/* ---- the store ----------------------------------------------------------- */

/* What is at a path. */
struct store_found {
	struct stat status;	/* itself, not what a link leads to */
	unsigned owner;		/* the rank whose it is */
};

/* A catalog that somebody else may have. */
struct catalog_wanted {
	const char *path;	/* of the checkpoint's folder */
	uint64_t signature;	/* of what it was made from */
	bool kept;		/* only if it is there: nobody makes it now */
};

/* What a source of shards is about; all is borrowed. */
struct shard_files {
	const char *path;		/* of the checkpoint's folder */
	const struct catalog *catalog;
	const struct placement *placement;
	atomic_bool *stale;		/* set when a file is found to be
					 * another */
};

/* All but `in_memory` and destroy may block. */
struct store {
	unsigned rank, ranks;	/* of this process, and of how many; const */
	bool in_memory;		/* `find` and the like never block; const */

	/* -ENOENT, -errno. May be a second old. */
	int (*find)(struct store *store, struct store_path path,
		    struct store_found *ret_found);
	/* The same as it is now, of what @owner has. */
	int (*status)(struct store *store, struct store_path path,
		      unsigned owner, struct stat *ret_status);
	/* The target of a link, appended to @out and terminated. */
	int (*link)(struct store *store, struct store_path path,
		    struct array *out);
	/* Open a regular file, of the nearest rank that has it; -EINVAL for
	 * anything else. */
	int (*open)(struct store *store, struct store_path path,
		    struct stored_file **ret_file);
	int (*statfs)(struct store *store, struct statvfs *ret_status);
	/* From now on leave out what has this device: the mount of this very
	 * store, which lies inside of it. */
	void (*hide)(struct store *store, uint64_t device);

	/* -ENOENT, -errno; a union finds out later whether it is there. */
	int (*open_folder)(struct store *store, struct store_path path,
			   struct store_folder **ret_folder);
	/* What it has; may be a second old unless @fresh. The caller puts
	 * it. */
	int (*list)(struct store_folder *folder, bool fresh,
		    struct store_list **ret_list);
	/* The regular file that a checkpoint means by @name: its owner and its
	 * pin there. Links are followed as io_open does it. */
	int (*resolve)(struct store_folder *folder, const char *name,
		       struct replica *ret_owner);
	/* Open that. */
	int (*open_in)(struct store_folder *folder, const char *name,
		       struct stored_file **ret_file);
	/* Where all files of @catalog, a checkpoint of this folder, are. Those
	 * that nobody has are no error; -errno for others, of the file
	 * @ret_bad. */
	int (*place)(struct store_folder *folder, const struct catalog *catalog,
		     struct placement **ret_placement, uint64_t *ret_bad);

	/* Does this process make catalogs, and say what is odd in them? */
	bool (*is_builder)(struct store *store);
	/* The catalog, checked, from who has made it. -ENODATA: nobody else
	 * does; -ESTALE: not there (yet); -errno. The caller puts it. */
	int (*get_catalog)(struct store *store,
			   const struct catalog_wanted *wanted,
			   struct catalog **ret_catalog);
	/* A source that reads what is not in files of this machine, and all else
	 * from @below; @below itself, if everything is. NULL: no memory. */
	struct source *(*wrap_source)(struct store *store,
				      const struct shard_files *files,
				      struct source *below);

	void (*destroy)(struct store *store);
};

/* @path from the top, or -ENAMETOOLONG. */
int store_path_whole(struct store_path path, char ret_path[LIMIT_PATH_SIZE]);
/* "@path/@name", or -ENAMETOOLONG. */
int store_join(const char *path, const char *name,
	       char ret_path[LIMIT_PATH_SIZE]);

#endif
