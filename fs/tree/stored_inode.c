/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/stored_inode.h"

#include "fs/tree/open_stored.h"
#include "shard/store/local_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

/* Its parent is a struct folder; of an asset it has none. */
struct stored_inode {
	struct known_inode known;	/* first: passed as this */
	unsigned owner;			/* the rank whose it is; const */
	bool regular;			/* const */
	/* Guarded by the lock of the inodes: */
	struct pin pin;			/* when it was last seen */
	struct open_files opens;
};

static struct stored_inode *from_inode(struct inode *inode)
{
	return (struct stored_inode *)(void *)inode;
}

/* Does what it has not change any more? */
static bool is_committed(struct namespace *ns, const struct stored_inode *s)
{
	const struct folder *folder = (const void *)s->known.parent;

	return folder && s->regular &&
	       folder_is_checkpoint(ns, folder);
}

/* Is @pin still this inode? */
static bool is_same(const struct pin *before, const struct pin *pin,
		    bool committed)
{
	return pin_same_file(before, pin) &&
	       (!committed || pin_same_bytes(before, pin));
}

/* A file that is still being written is asked for each time: who reads it would
 * take an old size for its end. */
static void fill_attr(const struct stored_inode *s, const struct stat *status,
		      bool committed, struct attr *ret_attr)
{
	ret_attr->status = *status;
	ret_attr->status.st_ino = s->known.base.number;
	ret_attr->timeout_s = committed ? TIMEOUT_STORE_S : 0;
}

static void destroy(struct namespace *ns, struct inode *inode)
{
	(void)ns;
	free(inode);
}

/* ---- getting one --------------------------------------------------------- */

struct wanted_file {
	const struct inode_ops *ops;
	struct pin pin;
	unsigned owner;
	bool committed;
};

static bool take(struct known_inode *known, const void *what)
{
	struct stored_inode *s = from_inode(&known->base);
	const struct wanted_file *wanted = what;

	if (known->base.ops != wanted->ops || s->owner != wanted->owner ||
	    !is_same(&s->pin, &wanted->pin, wanted->committed))
		return false;
	s->pin = wanted->pin;
	return true;
}

static struct known_inode *make(const void *what)
{
	const struct wanted_file *wanted = what;
	struct stored_inode *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->known.base.ops = wanted->ops;
	s->owner = wanted->owner;
	s->pin = wanted->pin;
	s->regular = S_ISREG(wanted->pin.mode);
	LIST_INIT(&s->opens);
	return &s->known;
}

static int get(struct namespace *ns, const struct inode_name *name,
	       const struct wanted_file *file, const struct stat *status,
	       struct attr *ret_attr)
{
	const struct inode_wanted wanted = { take, make, file };
	struct known_inode *known = inode_table_get(&ns->inodes, name, &wanted);

	if (!known)
		return -ENOMEM;
	fill_attr(from_inode(&known->base), status, file->committed, ret_attr);
	return 0;
}

/* ---- files of the store -------------------------------------------------- */

/* As it is at its path. */
static int look(struct namespace *ns, struct stored_inode *s, bool committed,
		struct stat *ret_status)
{
	struct folder_path path;
	struct pin pin, before;
	int error = folder_path_init(ns, &s->known, NULL, &path);

	if (error)
		return error;
	error = ns->store->status(ns->store, path.path, s->owner, ret_status);
	folder_path_finish(&path);
	if (error)
		return error == -ENOENT ? -ESTALE : error;
	pin = pin_from_stat(ret_status);
	pthread_mutex_lock(&ns->inodes.lock);
	before = s->pin;
	pthread_mutex_unlock(&ns->inodes.lock);
	return is_same(&before, &pin, committed) ? 0 : -ESTALE;
}

/* An open file is what is open, whatever its path leads to. */
static int get_status(struct namespace *ns, struct inode *inode, bool nowait,
		      struct attr *ret_attr)
{
	struct stored_inode *s = from_inode(inode);
	struct open_file *open = open_file_first(&ns->opens, &s->opens);
	bool committed = is_committed(ns, s);
	struct stat status;
	int error;

	if (open) {
		error = open->ops->status(open, nowait, &status);
		open_file_put(open);
		error = error == -ENOENT ? -ESTALE : error;
	} else if (nowait && !ns->store->in_memory) {
		error = -EAGAIN;
	} else {
		error = look(ns, s, committed, &status);
	}
	if (!error)
		fill_attr(s, &status, committed, ret_attr);
	return error;
}

static int read_link(struct namespace *ns, struct inode *inode, bool nowait,
		     struct array *out)
{
	struct folder_path path;
	int error = nowait ? -EAGAIN :
		    folder_path_init(ns, &from_inode(inode)->known, NULL,
				     &path);

	if (error)
		return error;
	error = ns->store->link(ns->store, path.path, out);
	folder_path_finish(&path);
	return error;
}

/* @stored, which people know by @name, is taken over, also on failure. */
static int open_as(struct namespace *ns, struct stored_inode *s,
		   const char *name, struct stored_file *stored,
		   struct open_file **ret_file)
{
	const struct stored_opening opening = {
		.ns = ns, .number = s->known.base.number, .beside = &s->opens,
		.name = name, .stored = stored,
		.committed = is_committed(ns, s),
	};
	struct pin before;

	pthread_mutex_lock(&ns->inodes.lock);
	before = s->pin;
	pthread_mutex_unlock(&ns->inodes.lock);
	if (is_same(&before, &stored->pin, opening.committed))
		return open_stored(&opening, ret_file);
	stored->close(stored);
	return -ESTALE;
}

static int open_it(struct namespace *ns, struct inode *inode, bool nowait,
		   struct open_file **ret_file)
{
	struct stored_inode *s = from_inode(inode);
	char name[LIMIT_PATH_SIZE];
	struct stored_file *stored;
	struct folder_path path;
	int error = nowait ? -EAGAIN :
		    folder_path_init(ns, &s->known, NULL, &path);

	if (error)
		return error;
	error = store_path_whole(path.path, name);
	if (!error)
		error = ns->store->open(ns->store, path.path, &stored);
	folder_path_finish(&path);
	if (error)
		return error == -ENOENT ? -ESTALE : error;
	return open_as(ns, s, name, stored, ret_file);
}

static const struct inode_ops stored_ops = {
	.status = get_status, .link = read_link, .open = open_it,
	.destroy = destroy,
};

int stored_inode_get(struct namespace *ns, struct folder *folder,
		     const char *name, const struct store_found *found,
		     struct attr *ret_attr)
{
	const struct inode_name where = inode_name_in(&folder->known, name);
	const struct wanted_file file = {
		.ops = &stored_ops, .pin = pin_from_stat(&found->status),
		.owner = found->owner,
		.committed = S_ISREG(found->status.st_mode) &&
			     folder_is_checkpoint(ns, folder),
	};

	return get(ns, &where, &file, &found->status, ret_attr);
}

/* ---- assets -------------------------------------------------------------- */

static int asset_find(const struct namespace *ns, const char *name,
		      struct stat *ret_status)
{
	if (ns->assets < 0)
		return -ENOENT;
	if (fstatat(ns->assets, name, ret_status, 0) < 0)
		return -errno;
	return S_ISREG(ret_status->st_mode) ? 0 : -ENOENT;
}

bool asset_is_there(const struct namespace *ns, const char *name)
{
	struct stat status;

	return asset_find(ns, name, &status) == 0;
}

static int asset_status(struct namespace *ns, struct inode *inode, bool nowait,
			struct attr *ret_attr)
{
	struct stored_inode *s = from_inode(inode);
	struct open_file *open;
	struct stat status;
	struct pin pin;
	int error;

	if (nowait)
		return -EAGAIN;
	open = open_file_first(&ns->opens, &s->opens);
	if (open) {
		error = open->ops->status(open, nowait, &status);
		open_file_put(open);
	} else {
		error = asset_find(ns, s->known.name, &status);
		pin = pin_from_stat(&status);
		if (error == -ENOENT ||
		    (!error && !pin_same_file(&s->pin, &pin)))
			error = -ESTALE;
	}
	if (!error)
		fill_attr(s, &status, false, ret_attr);
	return error;
}

static int asset_open(struct namespace *ns, struct inode *inode, bool nowait,
		      struct open_file **ret_file)
{
	struct stored_inode *s = from_inode(inode);
	struct local_opened opened = {
		.folder = ns->assets, .path = s->known.name,
	};
	struct stored_file *stored;
	int error;

	if (nowait)
		return -EAGAIN;
	error = io_open_linked(ns->assets, opened.path, &opened.fd,
			       &opened.status);
	if (!error)
		error = local_file_create(&opened, &stored);
	if (error)
		return error == -ENOENT ? -ESTALE : error;
	return open_as(ns, s, opened.path, stored, ret_file);
}

static const struct inode_ops asset_ops = {
	.status = asset_status, .open = asset_open, .destroy = destroy,
};

int asset_inode_get(struct namespace *ns, const char *name,
		    struct attr *ret_attr)
{
	/* In nothing that has a number. */
	const struct inode_name where = { .name = name };
	struct wanted_file file = { .ops = &asset_ops };
	struct stat status;
	int error = asset_find(ns, name, &status);

	if (error)
		return error;
	file.pin = pin_from_stat(&status);
	return get(ns, &where, &file, &status, ret_attr);
}
