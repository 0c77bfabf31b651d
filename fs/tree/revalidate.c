/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints come and go. A folder has one of
 *
 *	nothing		no marker, or one that was refused
 *	a live one	built from what the store had at the last look
 *
 * and a look, at most one a second, finds out whether that is still so:
 *
 *	nothing -> live		a marker has appeared, and could be read
 *	live -> live		a pin differs: the old one is retired
 *	live -> nothing		the marker is gone
 *
 * A retired checkpoint answers ESTALE, and lives on until the kernel has
 * forgotten its inodes. What was refused is not read again before its markers
 * change.
 */
#include "fs/tree/open_file.h"

#include "fs/log.h"
#include "fs/tree/stored.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_INTERVAL_MS = 1000 };

static const char *here(const char *path)
{
	return *path ? path : ".";
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void log_report(const struct folder *folder,
		       const struct checkpoint_report *report, int error)
{
	const char *slash = *folder->path ? "/" : "";
	unsigned i;

	for (i = 0; i < report->notes.count; i++)
		log_line(LOG_LEVEL_WARNING, "%s%s%s", folder->path, slash,
			 report->notes.line[i]);
	if (report->notes.dropped)
		log_line(LOG_LEVEL_WARNING, "%s: %u more like these",
			 here(folder->path), report->notes.dropped);
	if (!error)
		return;
	log_line(LOG_LEVEL_ERROR, "%s%s%s: byte %llu: %s%s%s", folder->path,
		 slash, report->file,
		 (unsigned long long)report->fault.offset,
		 report->fault.reason ? report->fault.reason : strerror(-error),
		 *report->fault.detail ? ": " : "", report->fault.detail);
}

static void log_hidden(const struct namespace *ns, const struct folder *folder)
{
	int view;

	for (view = 0; view < VIEW_COUNT; view++)
		if (stored_hides(ns, folder->path, (enum view)view))
			log_line(LOG_LEVEL_WARNING,
				 "%s: a stored file hides the view %s",
				 here(folder->path), view_names[view]);
}

static void log_root(const struct namespace *ns, const struct folder *folder,
		     const struct checkpoint *checkpoint)
{
	struct view_group group;

	if (ns->hf_root &&
	    !view_group_root(checkpoint->catalog, ns->hf_root, &group))
		log_line(LOG_LEVEL_WARNING, "%s: nothing is below %s: no model in hf/",
			 here(folder->path), ns->hf_root);
}

/* Of the store's own, or of the union if there is one; @live, if it is not
 * NULL, is what was there. */
static int try_to_open(const struct namespace *ns, const struct folder *folder,
		       const struct live *live, int fd,
		       struct checkpoint **checkpoint,
		       struct checkpoint_report *report)
{
	struct checkpoint_options options = {
		.cache = ns->cache, .before = live ? live->checkpoint : NULL,
	};

	return ns->merger ?
	       checkpoint_open_spread(ns->merger, ns->peers, folder->path,
				      &options, checkpoint, report) :
	       checkpoint_open(fd, &options, checkpoint, report);
}

/* The checkpoint that is in @fd now, if it is one that can be read. */
static struct checkpoint *open_checkpoint(const struct namespace *ns,
					  struct folder *folder,
					  const struct live *live, int fd)
{
	struct checkpoint_report *report = malloc(sizeof(*report));
	struct checkpoint *checkpoint = NULL;
	uint64_t signature = ns->merger ?
		checkpoint_spread_signature(ns->merger, folder->path, false) :
		checkpoint_signature(fd);
	int error = -ESTALE, tries;

	if (!report || signature == 0 || signature == folder->refused)
		goto free_report;
	for (tries = 0; tries < 3 && error == -ESTALE; tries++)
		error = try_to_open(ns, folder, live, fd, &checkpoint, report);
	folder->refused = 0;
	/* Gone, or still changing: the next look will see. What another rank
	 * has refused, or does not tell, is said over there. */
	if (error == -ENOENT || error == -ESTALE || error == -ESHUTDOWN)
		goto free_report;
	if (ns->merger && error && !*report->file) {
		if (error == -EBADMSG)
			folder->refused = signature;
		goto free_report;
	}
	log_report(folder, report, error);
	if (error == -EBADMSG || error == -E2BIG || io_is_missing(error))
		folder->refused = signature;
free_report:
	free(report);
	return checkpoint;
}

/* Reads of what is open fail from now on; what the kernel has of it goes. */
static void retire(struct namespace *ns, struct live *live)
{
	uint64_t inodes[64];
	unsigned count, i;
	uint64_t after = 0;

	if (!live)
		return;
	do {
		pthread_mutex_lock(&ns->nodes.lock);
		count = handle_inodes_locked(ns, live, after, inodes,
					     64);
		pthread_mutex_unlock(&ns->nodes.lock);
		for (i = 0; i < count && ns->drop_pages; i++)
			ns->drop_pages(ns->drop_context, inodes[i]);
		if (count > 0)
			after = inodes[count - 1];
	} while (count == 64);
	nodes_put_live(&ns->nodes, live);
}

static bool is_current(struct live *live, int fd)
{
	struct stat status;

	return live && fstat(fd, &status) == 0 &&
	       live->device == status.st_dev && live->inode == status.st_ino &&
	       checkpoint_is_current(live->checkpoint, &live->cursor);
}

/* Returns what is to be retired, with a reference, or NULL. */
static struct live *look_locked(struct namespace *ns, struct folder *folder)
{
	struct live *live = nodes_live(&ns->nodes, folder), *old = NULL;
	struct checkpoint *checkpoint = NULL;
	int fd = -1;

	if (!ns->merger &&
	    io_open_folder(ns->root, here(folder->path), &fd) < 0)
		fd = -1;
	if (ns->merger ? live && checkpoint_is_current(live->checkpoint,
						       &live->cursor) :
			 fd >= 0 && is_current(live, fd))
		goto put_live;
	if (fd >= 0 || ns->merger)
		checkpoint = open_checkpoint(ns, folder, live, fd);
	/* What could not be had just now is not gone. */
	if (ns->merger && !checkpoint && live &&
	    checkpoint_spread_signature(ns->merger, folder->path, false) ==
		    live->checkpoint->spread->signature &&
	    !checkpoint_is_stale(live->checkpoint))
		goto put_live;
	if ((checkpoint || live) &&
	    nodes_set_live(&ns->nodes, folder, checkpoint, &old))
		log_line(LOG_LEVEL_ERROR, "%s: out of memory",
			 here(folder->path));
	if (checkpoint) {
		log_hidden(ns, folder);
		log_root(ns, folder, checkpoint);
	}
put_live:
	if (live)
		nodes_put_live(&ns->nodes, live);
	if (fd >= 0)
		close(fd);
	return old;
}

static bool is_stale(struct namespace *ns, struct folder *folder)
{
	struct live *live = nodes_live(&ns->nodes, folder);
	bool stale;

	if (!live)
		return false;
	stale = checkpoint_is_stale(live->checkpoint);
	nodes_put_live(&ns->nodes, live);
	return stale;
}

static void look(struct namespace *ns, struct folder *folder, bool again)
{
	struct live *old = NULL;
	uint64_t now = now_ms();

	pthread_mutex_lock(&folder->look_lock);
	if (again || folder->looked_ms == 0 ||
	    now - folder->looked_ms >= LOOK_INTERVAL_MS ||
	    is_stale(ns, folder)) {
		old = look_locked(ns, folder);
		folder->looked_ms = now_ms();
	}
	pthread_mutex_unlock(&folder->look_lock);
	/* Dropping pages waits for reads of them, which may be waiting for a
	 * thread that wants the lock. */
	retire(ns, old);
}

void namespace_look(struct namespace *ns, struct folder *folder)
{
	look(ns, folder, false);
}

void namespace_look_again(struct namespace *ns, struct folder *folder)
{
	struct merged *merged;

	if (ns->merger && merger_get(ns->merger, folder->path, true,
				     &merged) == 0)
		merged_put(merged);
	look(ns, folder, true);
}
