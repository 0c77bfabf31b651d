/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel knows by a number, and what can be done with it: a folder or
 * a file of the store, a view, a file of a view, a report. Each kind is a small
 * struct that begins with a struct inode.
 */
#ifndef FS_TREE_INODE_H
#define FS_TREE_INODE_H

#include "shard/base/array.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct inode;
struct namespace;
struct open_file;
struct open_folder;

/* What stays as it is may stay in the kernel's caches; what does not is asked
 * for again after a second. */
enum { TIMEOUT_CONST_S = 86400, TIMEOUT_STORE_S = 1 };

/* An inode as the kernel is told of it. */
struct attr {
	struct stat status;	/* st_ino is the number */
	unsigned timeout_s;	/* of attributes and of the name */
};

/*
 * All but destroy return 0 or -errno; with @nowait also -EAGAIN, when the
 * thread would have to block. What is NULL cannot be done: the errno is behind
 * it.
 */
struct inode_ops {
	int (*status)(struct namespace *ns, struct inode *inode, bool nowait,
		      struct attr *ret_attr);
	/* What has the name @name below, with one more lookup. */
	int (*lookup)(struct namespace *ns, struct inode *inode,
		      const char *name, bool nowait,
		      struct attr *ret_attr);			/* ENOTDIR */
	/* The target of a symbolic link, appended to @out and terminated. */
	int (*link)(struct namespace *ns, struct inode *inode, bool nowait,
		    struct array *out);				/* EINVAL */
	int (*open)(struct namespace *ns, struct inode *inode, bool nowait,
		    struct open_file **ret_file);		/* EISDIR */
	int (*open_folder)(struct namespace *ns, struct inode *inode,
			   bool nowait,
			   struct open_folder **ret_folder);	/* ENOTDIR */
	/* As view_attribute and view_attributes. */
	int (*attribute)(struct namespace *ns, struct inode *inode,
			 const char *name, struct array *out);	/* ENODATA */
	int (*attributes)(struct namespace *ns, struct inode *inode,
			  struct array *out);			/* none */
	/* Free it, of the table; with no lock held. */
	void (*destroy)(struct namespace *ns, struct inode *inode);
};

struct inode {
	const struct inode_ops *ops;	/* const, as is the number */
	uint64_t number;
};

#endif
