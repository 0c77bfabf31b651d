/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/serve.h"

#include "fs/log.h"
#include "fs/tree/folder_inode.h"
#include "fs/tree/revalidate.h"

#include <errno.h>

/* The folder, which stays for a while: what was found out about it would be
 * gone with the last hold. The caller puts it. */
static struct folder *keep_folder(struct namespace *ns, const char *path)
{
	struct folder *folder = folder_inode_walk(ns, path), *old = NULL;
	unsigned i;

	if (!folder)
		return NULL;
	pthread_mutex_lock(&ns->kept_lock);
	for (i = 0; i < NAMESPACE_KEPT && ns->kept[i] != folder; i++)
		;
	if (i == NAMESPACE_KEPT) {
		i = ns->kept_next++ % NAMESPACE_KEPT;
		old = ns->kept[i];
		ns->kept[i] = folder;
		folder_hold(ns, folder);
	}
	pthread_mutex_unlock(&ns->kept_lock);
	if (old)
		folder_put(ns, old);
	return folder;
}

static void fill(struct mounted *mounted, struct held_checkpoint *ret_held)
{
	*ret_held = (struct held_checkpoint){
		.checkpoint = mounted->checkpoint, .path = mounted->path,
		.hold = mounted,
	};
}

/* What is there, if it is that. */
static int find_kept(struct namespace *ns, struct folder *folder,
		     uint64_t signature, struct mounted **ret_mounted)
{
	struct mounted *mounted = folder_mounted(ns, folder);

	if (!mounted)
		return -ESTALE;
	if (mounted->checkpoint->signature == signature) {
		*ret_mounted = mounted;
		return 0;
	}
	inode_table_put_mounted(&ns->inodes, mounted);
	return -ESTALE;
}

static int find(void *context, const struct catalog_wanted *wanted,
		struct held_checkpoint *ret_held)
{
	struct namespace *ns = context;
	struct folder *folder = keep_folder(ns, wanted->path);
	struct mounted *mounted;
	int error;

	if (!folder)
		return -ENOMEM;
	error = wanted->kept ?
		find_kept(ns, folder, wanted->signature, &mounted) :
		revalidate_for(ns, folder, wanted->signature, &mounted);
	folder_put(ns, folder);
	if (!error)
		fill(mounted, ret_held);
	return error;
}

static bool is_meant(const struct mounted *mounted, const struct catalog_id *id)
{
	const struct catalog *catalog = mounted->checkpoint->catalog;

	return catalog->hash[0] == id->hash[0] &&
	       catalog->hash[1] == id->hash[1] &&
	       catalog_folder_id(mounted->path) == id->folder;
}

static int find_id(void *context, const struct catalog_id *id, unsigned skip,
		   struct held_checkpoint *ret_held)
{
	struct namespace *ns = context;
	struct mounted *mounted;

	pthread_mutex_lock(&ns->inodes.lock);
	LIST_FOREACH(mounted, &ns->inodes.mounted, link)
		if (is_meant(mounted, id) && skip-- == 0)
			break;
	if (mounted)
		mounted->holds++;
	pthread_mutex_unlock(&ns->inodes.lock);
	if (!mounted)
		return -ENODATA;
	fill(mounted, ret_held);
	return 0;
}

static int look(void *context, const char *path)
{
	struct namespace *ns = context;
	struct folder *folder = keep_folder(ns, path);

	if (!folder)
		return -ENOMEM;
	/* It may be known, with files that were there before. */
	revalidate_now(ns, folder);
	folder_put(ns, folder);
	return 0;
}

static void put(void *context, const struct held_checkpoint *held)
{
	struct namespace *ns = context;

	inode_table_put_mounted(&ns->inodes, held->hold);
}

static void say(void *context, const char *line)
{
	(void)context;
	log_line(LOG_LEVEL_ERROR, "%s", line);
}

void serve_hooks(struct namespace *ns, struct checkpoint_hooks *ret_hooks)
{
	*ret_hooks = (struct checkpoint_hooks){
		.context = ns, .find = find, .find_id = find_id, .look = look,
		.put = put, .say = say,
	};
}
