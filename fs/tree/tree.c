/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/tree.h"

#include "fs/log.h"
#include "fs/tree/own_inode.h"
#include "fs/tree/revalidate.h"
#include "shard/store/folder_store.h"
#include "shard/store/union_store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- inodes -------------------------------------------------------------- */

static struct inode *find(struct namespace *ns, uint64_t number,
			  struct view_inode *room)
{
	return inode_table_find(&ns->inodes, number, room);
}

int tree_lookup(struct namespace *ns, uint64_t parent, const char *name,
		bool nowait, struct attr *ret_attr)
{
	struct view_inode room;
	struct inode *inode = find(ns, parent, &room);

	if (!inode)
		return -ESTALE;
	return inode->ops->lookup ?
	       inode->ops->lookup(ns, inode, name, nowait, ret_attr) : -ENOTDIR;
}

int tree_status(struct namespace *ns, uint64_t number, bool nowait,
		struct attr *ret_attr)
{
	struct view_inode room;
	struct inode *inode = find(ns, number, &room);

	return inode ? inode->ops->status(ns, inode, nowait, ret_attr) :
		       -ESTALE;
}

int tree_link(struct namespace *ns, uint64_t number, bool nowait,
	      struct array *out)
{
	struct view_inode room;
	struct inode *inode = find(ns, number, &room);

	if (!inode)
		return -ESTALE;
	return inode->ops->link ? inode->ops->link(ns, inode, nowait, out) :
				  -EINVAL;
}

int tree_attribute(struct namespace *ns, uint64_t number, const char *name,
		   struct array *out)
{
	struct view_inode room;
	struct inode *inode;

	/* `ls -l` asks for two that nobody has, of each file. */
	if (!view_is_attribute(name))
		return -ENODATA;
	inode = find(ns, number, &room);
	if (!inode)
		return -ESTALE;
	return inode->ops->attribute ?
	       inode->ops->attribute(ns, inode, name, out) : -ENODATA;
}

int tree_attributes(struct namespace *ns, uint64_t number, struct array *out)
{
	struct view_inode room;
	struct inode *inode = find(ns, number, &room);

	if (!inode)
		return -ESTALE;
	return inode->ops->attributes ?
	       inode->ops->attributes(ns, inode, out) : 0;
}

int tree_open(struct namespace *ns, uint64_t number, bool nowait,
	      struct open_file **ret_file)
{
	struct view_inode room;
	struct inode *inode = find(ns, number, &room);

	if (!inode)
		return -ESTALE;
	return inode->ops->open ?
	       inode->ops->open(ns, inode, nowait, ret_file) : -EISDIR;
}

int tree_open_folder(struct namespace *ns, uint64_t number, bool nowait,
		     struct open_folder **ret_folder)
{
	struct view_inode room;
	struct inode *inode = find(ns, number, &room);

	if (!inode)
		return -ESTALE;
	return inode->ops->open_folder ?
	       inode->ops->open_folder(ns, inode, nowait, ret_folder) :
	       -ENOTDIR;
}

int tree_statfs(struct namespace *ns, struct statvfs *ret_status)
{
	return ns->store->statfs(ns->store, ret_status);
}

/* ---- life ---------------------------------------------------------------- */

static int open_folder(const char *path, int *ret_fd, const char **ret_bad)
{
	*ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*ret_bad = path;
	return *ret_fd < 0 ? -errno : 0;
}

static int make_store(struct namespace *ns)
{
	int copy = fcntl(ns->root, F_DUPFD_CLOEXEC, 0);

	if (copy < 0)
		return -errno;
	ns->store = folder_store_create(copy);
	if (ns->store)
		return 0;
	close(copy);
	return -ENOMEM;
}

static void close_all(struct namespace *ns)
{
	if (ns->store)
		ns->store->destroy(ns->store);
	decoded_cache_destroy(ns->cache);
	pthread_mutex_destroy(&ns->kept_lock);
	if (ns->root >= 0)
		close(ns->root);
	if (ns->assets >= 0)
		close(ns->assets);
}

int tree_init(struct namespace *ns, const char *path,
	      const struct tree_options *options, const char **ret_bad)
{
	int error;

	*ns = (struct namespace){ .root = -1, .assets = -1,
				  .hf_root = options->hf_root };
	ns->opens = (struct open_table){ .ns = ns, .lock = &ns->inodes.lock };
	TAILQ_INIT(&ns->named);
	pthread_mutex_init(&ns->kept_lock, NULL);
	inode_table_init(&ns->inodes, ns);
	error = open_folder(path, &ns->root, ret_bad);
	if (!error && options->hf_assets)
		error = open_folder(options->hf_assets, &ns->assets, ret_bad);
	if (!error) {
		ns->cache = decoded_cache_create(options->decoded_cache);
		error = ns->cache ? own_inode_make_top(ns) : -ENOMEM;
	}
	if (!error && !options->ranks)
		error = make_store(ns);
	if (error) {
		inode_table_finish(&ns->inodes);
		close_all(ns);
		return error;
	}
	if (!options->ranks)
		revalidate(ns, ns->top);
	return 0;
}

static void say(void *context, const char *line)
{
	(void)context;
	log_line(LOG_LEVEL_WARNING, "%s", line);
}

int tree_join(struct namespace *ns, struct peers *peers)
{
	ns->store = union_store_create(peers, say, NULL);
	if (!ns->store)
		return -ENOMEM;
	ns->peers = peers;
	return 0;
}

/* What is held stays in the list. */
void tree_close_idle(struct namespace *ns)
{
	struct inode_table *inodes = &ns->inodes;
	struct mounted *mounted, *next;

	pthread_mutex_lock(&inodes->lock);
	mounted = LIST_FIRST(&inodes->mounted);
	if (mounted)
		mounted->holds++;
	pthread_mutex_unlock(&inodes->lock);
	for (; mounted; mounted = next) {
		checkpoint_close_idle(mounted->checkpoint);
		pthread_mutex_lock(&inodes->lock);
		next = LIST_NEXT(mounted, link);
		if (next)
			next->holds++;
		pthread_mutex_unlock(&inodes->lock);
		inode_table_put_mounted(inodes, mounted);
	}
}

static void put_kept(struct namespace *ns)
{
	unsigned i;

	for (i = 0; i < NAMESPACE_KEPT; i++)
		if (ns->kept[i])
			folder_put(ns, ns->kept[i]);
}

/* What clients had still open when the mount ended goes first. */
void tree_finish(struct namespace *ns)
{
	while (!LIST_EMPTY(&ns->opens.files))
		open_file_put(LIST_FIRST(&ns->opens.files));
	while (!LIST_EMPTY(&ns->opens.folders))
		open_folder_put(LIST_FIRST(&ns->opens.folders));
	put_kept(ns);
	inode_table_finish(&ns->inodes);
	close_all(ns);
}
