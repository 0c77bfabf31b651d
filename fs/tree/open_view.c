/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/open_view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* What it reads from is the matter of its ops. */
struct open_view {
	struct open_file base;		/* first: passed as this */
	struct mounted *mounted;	/* one hold, once it is open; const, as
					 * are all */
	const struct checkpoint *checkpoint; /* of that */
	struct virtual_file *content;	/* one reference, and all that it is
					 * made of is kept */
	struct array text;		/* owned */
	int fd;				/* borrowed from `mounted` */
	/* For people: */
	uint64_t entry;
	bool grouped;
	struct view_group group;
};

static struct open_view *from_file(const struct open_file *file)
{
	return (struct open_view *)(uintptr_t)file;
}

/* ---- reading ------------------------------------------------------------- */

static int read_content(struct open_file *file, uint64_t offset,
			struct reply *reply)
{
	struct open_view *view = from_file(file);
	uint64_t size = virtual_file_size(view->content);
	uint64_t left = offset < size ? size - offset : 0;

	if (reply->size > left)
		reply->size = left;
	return virtual_file_read(view->content,
				 checkpoint_source(view->mounted->checkpoint),
				 offset < size ? offset : size, reply);
}

static int read_text(struct open_file *file, uint64_t offset,
		     struct reply *reply)
{
	struct open_view *view = from_file(file);

	open_file_lend(&view->text, offset, reply);
	return 0;
}

static int read_fd(struct open_file *file, uint64_t offset, struct reply *reply)
{
	struct open_view *view = from_file(file);
	const struct io_file memory = { .fd = view->fd, .in_memory = true };

	return io_read_up_to(&memory, reply->data, reply->size, offset,
			     &reply->size);
}

static void describe(const struct open_file *file, char *text, size_t size)
{
	const struct open_view *view = from_file(file);
	const struct catalog *catalog = view->mounted->checkpoint->catalog;
	const char *path = view->mounted->path, *slash = *path ? "/" : "";
	const struct view_file group = {
		.view = VIEW_SAFETENSORS, .grouped = true,
		.group = view->group,
	};
	const struct catalog_entry *entry;
	char name[NAME_MAX + 1];

	if (view->grouped) {
		view_print(catalog, &group, name);
		snprintf(text, size, "%s%s%s", path, slash, name);
		return;
	}
	entry = catalog_entry(catalog, view->entry);
	snprintf(text, size, "%s%s%.*s", path, slash,
		 entry->name_size > NAME_MAX ? NAME_MAX :
					       (int)entry->name_size,
		 catalog_text(catalog, entry->name));
}

static void describe_fd(const struct open_file *file, char *text, size_t size)
{
	(void)file;
	snprintf(text, size, "%s", view_names[VIEW_JSON]);
}

static void destroy(struct open_view *view)
{
	if (view->content)
		virtual_file_release(view->content,
				     checkpoint_source(view->checkpoint));
	virtual_file_put(view->content);
	array_finish(&view->text);
	free(view);
}

static void close_it(struct open_file *file)
{
	struct inode_table *inodes = &file->table->ns->inodes;
	struct open_view *view = from_file(file);
	struct mounted *mounted = view->mounted;

	destroy(view);
	inode_table_put_mounted(inodes, mounted);
}

static const struct open_file_ops content_ops = {
	.read = read_content, .describe = describe, .close = close_it,
};

static const struct open_file_ops text_ops = {
	.read = read_text, .describe = describe, .close = close_it,
};

static const struct open_file_ops fd_ops = {
	.read = read_fd, .describe = describe_fd, .close = close_it,
};

/* ---- opening ------------------------------------------------------------- */

static int make_text(struct open_view *view, const struct view_file *file)
{
	int error = file->json ? view_object_json(view->checkpoint,
						  file->entry, &view->text) :
				 view_object(view->checkpoint, file->entry,
					     &view->text);

	return error == -EOPNOTSUPP && file->json ? -EIO : error;
}

/* With all that it is made of. */
static int make_content(struct open_view *view, const struct view_file *file,
			bool nowait)
{
	struct virtual_file *content = file->content;
	int error = 0;

	if (content)
		virtual_file_get(content);
	else
		error = view_content(view->checkpoint->catalog, file, &content);
	if (error)
		return error;
	error = virtual_file_hold(content, checkpoint_source(view->checkpoint),
				  nowait);
	if (error)
		virtual_file_put(content);
	else
		view->content = content;
	return error;
}

static bool has_holes(const struct catalog *catalog,
		      const struct view_file *file)
{
	return !file->grouped &&
	       catalog_entry(catalog, file->entry)->flags & CATALOG_HOLES;
}

/*
 * Of @inode; what it reads from is there. Takes @view over, also on failure:
 * -ESTALE. Whoever retires the checkpoint then finds all that is open.
 */
static int enlist(struct namespace *ns, const struct view_inode *inode,
		  const struct open_file_ops *ops, struct open_view *view)
{
	struct mounted *mounted = inode->mounted;
	bool retired;

	view->mounted = mounted;
	open_file_init(&view->base, &ns->opens, ops, inode->base.number);
	pthread_mutex_lock(&ns->inodes.lock);
	retired = atomic_load(&mounted->retired);
	if (!retired) {
		mounted->holds++;
		open_file_enlist_locked(&view->base, &mounted->opens);
	}
	pthread_mutex_unlock(&ns->inodes.lock);
	if (retired)
		destroy(view);
	return retired ? -ESTALE : 0;
}

int open_view(struct namespace *ns, const struct view_inode *inode,
	      const struct view_file *file, bool nowait,
	      struct open_file **ret_file)
{
	const struct checkpoint *checkpoint = inode->mounted->checkpoint;
	const struct catalog *catalog = checkpoint->catalog;
	bool text = file->json || view_is_decoded(catalog, file);
	struct open_view *view;
	int error;

	if (text && nowait)
		return -EAGAIN;
	view = calloc(1, sizeof(*view));
	if (!view)
		return -ENOMEM;
	view->entry = file->entry;
	view->grouped = file->grouped;
	view->group = file->group;
	view->checkpoint = checkpoint;
	error = text ? make_text(view, file) :
		       make_content(view, file, nowait);
	if (error) {
		destroy(view);
		return error;
	}
	/* Reading ahead must not touch a hole. */
	view->base.direct = has_holes(catalog, file);
	view->base.keep_cache = !view->base.direct;
	*ret_file = &view->base;
	return enlist(ns, inode, text ? &text_ops : &content_ops, view);
}

int open_view_text(struct namespace *ns, const struct view_inode *inode,
		   bool nowait, struct open_file **ret_file)
{
	struct open_view *view;
	uint64_t size;
	int fd, error = mounted_text(inode->mounted, nowait, &fd, &size);

	if (error)
		return error;
	view = calloc(1, sizeof(*view));
	if (!view)
		return -ENOMEM;
	view->fd = fd;
	view->checkpoint = inode->mounted->checkpoint;
	view->base.keep_cache = true;
	*ret_file = &view->base;
	return enlist(ns, inode, &fd_ops, view);
}
