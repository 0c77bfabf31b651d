/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree that a mount shows: the store's own files, the views beside them,
 * and what can be done with each. Everything here is thread safe.
 *
 * @nowait says that the calling thread must not block: what would need the
 * store is then -EAGAIN, and the caller tries again from a thread of the
 * pool. Everything else is answered from memory.
 */
#ifndef FS_TREE_TREE_H
#define FS_TREE_TREE_H

#include "fs/tree/namespace.h"

#include <sys/statvfs.h>

struct tree_options {
	uint64_t decoded_cache;	/* bytes of decoded items to keep */
	const char *hf_root; /* key below which hf/ finds the model; NULL:
				 * see view_group_root; outlives the namespace */
	const char *hf_assets;	/* folder of more files for hf/; NULL: none */
	bool ranks;		/* tree_join follows */
};

/* The store at @path. Its own checkpoint, if it is one, is opened at once,
 * so that a refusal is seen. 0 or -errno; @ret_bad is the path that it is
 * about. */
int tree_init(struct namespace *ns, const char *path,
	      const struct tree_options *options, const char **ret_bad);
/* Show the union of the stores of all ranks; @peers outlives the namespace,
 * and need not be ready. Before anything is asked for. 0 or -ENOMEM. */
int tree_join(struct namespace *ns, struct peers *peers);
void tree_finish(struct namespace *ns);

/* ---- inodes, by their numbers -------------------------------------------- */

/* Each as in inode_ops; -ESTALE for a number that is not known. */
int tree_lookup(struct namespace *ns, uint64_t parent, const char *name,
		bool nowait, struct attr *ret_attr);
int tree_status(struct namespace *ns, uint64_t number, bool nowait,
		struct attr *ret_attr);
int tree_link(struct namespace *ns, uint64_t number, bool nowait,
	      struct array *out);
int tree_attribute(struct namespace *ns, uint64_t number, const char *name,
		   struct array *out);
int tree_attributes(struct namespace *ns, uint64_t number, struct array *out);
/* The caller puts what is open. */
int tree_open(struct namespace *ns, uint64_t number, bool nowait,
	      struct open_file **ret_file);
int tree_open_folder(struct namespace *ns, uint64_t number, bool nowait,
		     struct open_folder **ret_folder);
int tree_statfs(struct namespace *ns, struct statvfs *ret_status);

/* Close the files of checkpoints that nobody reads or has open. May block: not
 * on a thread that answers. */
void tree_close_idle(struct namespace *ns);

#endif
