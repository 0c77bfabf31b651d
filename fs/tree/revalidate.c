/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints come and go. A folder has one of
 *
 *	nothing		no marker, or one that was refused
 *	a mounted one	made from what the store had at the last look
 *
 * and a look, at most one a second, finds out whether that is still so:
 *
 *	nothing -> mounted	a marker has appeared, and could be read
 *	mounted -> mounted	a pin differs: the old one is retired
 *	mounted -> nothing	the marker is gone
 *
 * What cannot be looked at just now stays as it is. A retired checkpoint lives on
 * until the kernel has forgotten its inodes and nothing of it is open. What was
 * refused is not read again before its markers change.
 */
#include "fs/tree/revalidate.h"

#include "fs/log.h"
#include "fs/tree/view_inode.h"
#include "shard/base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_INTERVAL_MS = 1000, TRIES = 3 };

/* One look at a folder. */
struct look {
	struct namespace *ns;
	struct folder *folder;
	char path[LIMIT_PATH_SIZE];	/* of it, for people */
	struct mounted *before;		/* one hold; NULL: it had none */
	struct checkpoint_report report;
	uint64_t signature;		/* of the markers that are there; 0:
					 * there are none */
	bool current;			/* what was there before still is */
};

/* ---- what is said -------------------------------------------------------- */

static const char *here(const char *path)
{
	return *path ? path : ".";
}

static void log_report(const struct look *look, int error)
{
	const struct checkpoint_report *report = &look->report;
	const char *slash = *look->path ? "/" : "";
	unsigned i;

	for (i = 0; i < report->notes.count; i++)
		log_line(LOG_LEVEL_WARNING, "%s%s%s", look->path, slash,
			 report->notes.line[i]);
	if (report->notes.dropped)
		log_line(LOG_LEVEL_WARNING, "%s: %u more like these",
			 here(look->path), report->notes.dropped);
	if (!error)
		return;
	log_line(LOG_LEVEL_ERROR, "%s%s%s: byte %llu: %s%s%s", look->path,
		 slash, report->file,
		 (unsigned long long)report->fault.offset,
		 report->fault.reason ? report->fault.reason : strerror(-error),
		 *report->fault.detail ? ": " : "", report->fault.detail);
}

/* Is a view hidden behind something stored of its name? */
static bool is_hidden(struct store_folder *folder, enum view view)
{
	struct store_found found;

	return folder->store->find(folder->store,
				   store_path_in(folder, view_names[view]),
				   &found) == 0;
}

static void log_views(const struct look *look,
		      const struct checkpoint *checkpoint)
{
	const struct namespace *ns = look->ns;
	struct view_group group;
	int view;

	for (view = 0; view < VIEW_COUNT; view++)
		if (is_hidden(checkpoint->folder, (enum view)view))
			log_line(LOG_LEVEL_WARNING,
				 "%s: a stored file hides the view %s",
				 here(look->path), view_names[view]);
	if (ns->hf_root &&
	    !view_group_root(checkpoint->catalog, ns->hf_root, &group))
		log_line(LOG_LEVEL_WARNING, "%s: nothing is below %s: no model in hf/",
			 here(look->path), ns->hf_root);
}

/* ---- looking ------------------------------------------------------------- */

static int open_folder(struct namespace *ns, const struct folder *folder,
		       struct store_folder **ret_folder)
{
	struct folder_path path;
	int error = folder_path_init(ns, &folder->known, NULL, &path);

	if (error)
		return error;
	error = ns->store->open_folder(ns->store, path.path, ret_folder);
	folder_path_finish(&path);
	return error;
}

/* The folder, and the markers in it. */
static int find_markers(struct look *look, struct store_folder **ret_folder,
			struct metadata_files *ret_markers)
{
	int error = open_folder(look->ns, look->folder, ret_folder);

	if (error)
		return error;
	error = metadata_files_read(*ret_folder, NULL, ret_markers);
	if (error)
		store_folder_put(*ret_folder);
	return error;
}

/*
 * What is there now: 0 with a checkpoint, or without one if it is that from
 * before, or was refused before; -ESTALE when it changed while it was read.
 */
static int try_once(struct look *look, struct checkpoint **ret_checkpoint)
{
	struct checkpoint *before =
		look->before ? look->before->checkpoint : NULL;
	const struct checkpoint_options options = {
		.cache = look->ns->cache, .before = before,
	};
	struct metadata_files markers;
	struct store_folder *folder;
	int error = find_markers(look, &folder, &markers);

	look->signature = 0;
	if (error)
		return error;
	metadata_files_pin(&markers, folder);
	look->signature = metadata_files_signature(&markers);
	look->current = before &&
			checkpoint_is_current(before, folder, &markers,
					      &look->folder->cursor);
	if (!look->current && look->signature != look->folder->refused)
		return checkpoint_open(folder, &markers, &options,
				       ret_checkpoint, &look->report);
	metadata_files_finish(&markers);
	store_folder_put(folder);
	return 0;
}

/* @error of opening what has look->signature. */
static void take_refusal_locked(struct look *look, int error)
{
	struct store *store = look->ns->store;

	/* Gone, or still changing: the next look will see. */
	if (error == -ENOENT || error == -ESTALE || error == -ESHUTDOWN)
		return;
	/* What another rank has refused, or does not tell, is said there. */
	if (*look->report.file || store->is_builder(store))
		log_report(look, error);
	else if (error != -EBADMSG)
		return;
	if (error == -EBADMSG || error == -E2BIG || io_is_missing(error))
		look->folder->refused = look->signature;
}

/* Does that from before stay, since what is there now cannot be had just now? */
static bool stays(const struct look *look, int error)
{
	const struct checkpoint *before =
		look->before ? look->before->checkpoint : NULL;

	if (!error || !before || checkpoint_is_stale(before))
		return false;
	return look->signature ? look->signature == before->signature :
				 !io_is_missing(error);
}

/* What is open of it is read on, as far as its files have their bytes; of those
 * that have others, what the kernel has goes. */
static void retire(struct namespace *ns, struct mounted *mounted)
{
	uint64_t numbers[64];
	unsigned count, i;
	uint64_t after = 0;

	if (!mounted)
		return;
	checkpoint_find_changes(mounted->checkpoint);
	do {
		count = checkpoint_is_stale(mounted->checkpoint) ?
			open_file_numbers(&ns->opens, &mounted->opens, after, numbers,
					  64) : 0;
		for (i = 0; i < count && ns->drop_pages; i++)
			ns->drop_pages(ns->drop_context, numbers[i]);
		if (count > 0)
			after = numbers[count - 1];
	} while (count == 64);
	inode_table_put_mounted(&ns->inodes, mounted);
}

/* Returns what the folder had, with its hold, if that is retired. */
static struct mounted *show_locked(struct look *look,
				   struct checkpoint *checkpoint)
{
	struct namespace *ns = look->ns;
	struct mounted *mounted = NULL;
	uint64_t base;

	if (checkpoint) {
		log_views(look, checkpoint);
		base = inode_table_reserve(&ns->inodes,
					   mounted_inode_count(checkpoint));
		mounted = mounted_create(checkpoint, look->path,
					 look->folder->known.base.number,
					 view_inode_ops, base);
		if (!mounted)
			log_line(LOG_LEVEL_ERROR, "%s: out of memory",
				 here(look->path));
	}
	return folder_set_mounted(ns, look->folder, mounted);
}

static struct mounted *look_locked(struct look *look)
{
	struct checkpoint *checkpoint = NULL;
	int error = -ESTALE, tries;

	for (tries = 0; tries < TRIES && error == -ESTALE; tries++)
		error = try_once(look, &checkpoint);
	if (look->current || stays(look, error))
		return NULL;
	if (checkpoint || error) {
		look->folder->refused = 0;
		if (checkpoint)
			log_report(look, 0);
		else
			take_refusal_locked(look, error);
	}
	return show_locked(look, checkpoint);
}

static bool is_stale(struct namespace *ns, struct folder *folder)
{
	struct mounted *mounted = folder_mounted(ns, folder);
	bool stale;

	if (!mounted)
		return false;
	stale = checkpoint_is_stale(mounted->checkpoint);
	inode_table_put_mounted(&ns->inodes, mounted);
	return stale;
}

/* Returns what is to be retired, with its hold, or NULL. */
static struct mounted *start_look_locked(struct namespace *ns,
					 struct folder *folder)
{
	struct look *look = calloc(1, sizeof(*look));
	struct mounted *old = NULL;

	if (!look) {
		log_line(LOG_LEVEL_ERROR, "looking at a folder: out of memory");
		return NULL;
	}
	look->ns = ns;
	look->folder = folder;
	look->before = folder_mounted(ns, folder);
	if (folder_name(ns, folder, look->path) == 0)
		old = look_locked(look);
	if (look->before)
		inode_table_put_mounted(&ns->inodes, look->before);
	folder->looked_ms = clock_coarse_ms();
	free(look);
	return old;
}

/* Dropping pages waits for reads of them, which may be waiting for a thread that
 * wants the lock: what is retired is, after that. */
void revalidate(struct namespace *ns, struct folder *folder)
{
	struct mounted *old = NULL;

	pthread_mutex_lock(&folder->look_lock);
	if (folder->looked_ms == 0 ||
	    clock_coarse_ms() - folder->looked_ms >= LOOK_INTERVAL_MS ||
	    is_stale(ns, folder))
		old = start_look_locked(ns, folder);
	pthread_mutex_unlock(&folder->look_lock);
	retire(ns, old);
}

/* What the ranks have now. */
static void refresh(struct namespace *ns, struct folder *folder)
{
	struct store_folder *now;
	struct store_list *list;

	if (open_folder(ns, folder, &now))
		return;
	if (ns->store->list(now, true, &list) == 0)
		store_list_put(list);
	store_folder_put(now);
}

void revalidate_now(struct namespace *ns, struct folder *folder)
{
	struct mounted *old;

	refresh(ns, folder);
	pthread_mutex_lock(&folder->look_lock);
	old = start_look_locked(ns, folder);
	pthread_mutex_unlock(&folder->look_lock);
	retire(ns, old);
}

/* What is known of @signature: as revalidate_for. */
static int recall(struct namespace *ns, struct folder *folder,
		  uint64_t signature, struct mounted **ret_mounted)
{
	struct mounted *mounted = folder_mounted(ns, folder);
	bool refused;

	if (mounted && mounted->checkpoint->signature == signature) {
		*ret_mounted = mounted;
		return 0;
	}
	if (mounted)
		inode_table_put_mounted(&ns->inodes, mounted);
	pthread_mutex_lock(&folder->look_lock);
	refused = folder->refused == signature;
	pthread_mutex_unlock(&folder->look_lock);
	return refused ? -EBADMSG : -ESTALE;
}

int revalidate_for(struct namespace *ns, struct folder *folder,
		   uint64_t signature, struct mounted **ret_mounted)
{
	int error;

	revalidate(ns, folder);
	error = recall(ns, folder, signature, ret_mounted);
	if (error != -ESTALE)
		return error;
	revalidate_now(ns, folder);
	return recall(ns, folder, signature, ret_mounted);
}
