/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/view_inode.h"

#include "fs/log.h"
#include "fs/tree/open_view.h"
#include "fs/tree/stored_inode.h"
#include "fs/tree/view_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct view_inode *from_inode(struct inode *inode)
{
	return (struct view_inode *)inode;
}

/* ---- views, and links to them --------------------------------------------- */

static int append_text(struct array *out, const char *text)
{
	return array_append(out, text, strlen(text));
}

static int link_target(const struct mounted *mounted, enum view view,
		       struct array *out)
{
	const char *p;
	int error = 0;

	for (p = mounted->path; *p && !error; p++)
		if (p == mounted->path || p[-1] == '/')
			error = append_text(out, "../");
	if (!error)
		error = append_text(out, NAMESPACE_OWN "/views/");
	if (!error && *mounted->path) {
		error = append_text(out, mounted->path);
		if (!error)
			error = append_text(out, "/");
	}
	if (!error)
		error = append_text(out, view_names[view]);
	return error ? error : array_append(out, "", 1);
}

int view_link_attr(struct mounted *mounted, enum view view,
		   struct attr *ret_attr)
{
	struct array target = { .data = NULL };
	int error = link_target(mounted, view, &target);

	if (!error)
		mounted_status(mounted, S_IFLNK, target.size - 1,
			       &ret_attr->status);
	array_finish(&target);
	ret_attr->timeout_s = TIMEOUT_STORE_S;
	ret_attr->status.st_ino = mounted_link_number(mounted, view);
	return error;
}

int view_inode_attr(struct mounted *mounted, enum view view, bool nowait,
		    struct attr *ret_attr)
{
	uint64_t size = 0;
	int fd, error = 0;

	if (view == VIEW_JSON)
		error = mounted_text(mounted, nowait, &fd, &size);
	if (error)
		return error;
	mounted_status(mounted, view == VIEW_JSON ? S_IFREG : S_IFDIR, size,
		       &ret_attr->status);
	ret_attr->timeout_s = TIMEOUT_STORE_S;
	ret_attr->status.st_ino = mounted_view_number(mounted, view);
	return 0;
}

static int view_status(struct namespace *ns, struct inode *inode, bool nowait,
		       struct attr *ret_attr)
{
	struct view_inode *view = from_inode(inode);

	(void)ns;
	return view_inode_attr(view->mounted, mounted_view(view), nowait,
			       ret_attr);
}

static int link_status(struct namespace *ns, struct inode *inode, bool nowait,
		       struct attr *ret_attr)
{
	struct view_inode *view = from_inode(inode);

	(void)ns;
	(void)nowait;
	return view_link_attr(view->mounted, mounted_view(view), ret_attr);
}

static int read_link(struct namespace *ns, struct inode *inode, bool nowait,
		     struct array *out)
{
	struct view_inode *view = from_inode(inode);

	(void)ns;
	(void)nowait;
	return link_target(view->mounted, mounted_view(view), out);
}

static int open_folder(struct namespace *ns, struct inode *inode, bool nowait,
		       struct open_folder **ret_folder)
{
	return view_list_open(ns, from_inode(inode), nowait, ret_folder);
}

static int open_text(struct namespace *ns, struct inode *inode, bool nowait,
		     struct open_file **ret_file)
{
	return open_view_text(ns, from_inode(inode), nowait, ret_file);
}

/* ---- files --------------------------------------------------------------- */

/* Those with a number of their own, and the others, know in their own way what
 * they are. */
struct file_ops {
	struct inode_ops base;		/* first: passed as this */
	/* Its view_inode, and what is in it; content is borrowed. */
	struct view_inode (*load)(struct inode *inode,
				  struct view_file *ret_file);
};

static struct view_inode load(struct inode *inode, struct view_file *ret_file)
{
	return ((const struct file_ops *)inode->ops)->load(inode, ret_file);
}

static int file_status(struct namespace *ns, struct inode *inode, bool nowait,
		       struct attr *ret_attr)
{
	struct view_file file;
	struct view_inode view = load(inode, &file);
	int error = mounted_file_status(view.mounted, &file, nowait,
					&ret_attr->status);

	(void)ns;
	ret_attr->status.st_ino = inode->number;
	ret_attr->timeout_s = TIMEOUT_CONST_S;
	return error;
}

static int open_file(struct namespace *ns, struct inode *inode, bool nowait,
		     struct open_file **ret_file)
{
	struct view_file file;
	struct view_inode view = load(inode, &file);

	return open_view(ns, &view, &file, nowait, ret_file);
}

static int attribute(struct namespace *ns, struct inode *inode,
		     const char *name, struct array *out)
{
	struct view_file file;
	struct view_inode view = load(inode, &file);

	(void)ns;
	return view_attribute(view.mounted->checkpoint, &file, name, out);
}

static int attributes(struct namespace *ns, struct inode *inode,
		      struct array *out)
{
	struct view_file file;

	(void)ns;
	load(inode, &file);
	return view_attributes(&file, out);
}

#define FILE_OPS \
	.status = file_status, .open = open_file, .attribute = attribute, \
	.attributes = attributes

static struct view_inode load_numbered(struct inode *inode,
				       struct view_file *ret_file)
{
	struct view_inode *view = from_inode(inode);

	mounted_file(view->mounted, inode->number, ret_file);
	return *view;
}

static const struct file_ops numbered_ops = {
	.base = { FILE_OPS }, .load = load_numbered,
};

/* ---- slices and groups --------------------------------------------------- */

/* A view_file without room for all the axes that there could be. */
struct named_inode {
	struct known_inode known;	/* first: passed as this */
	struct mounted *mounted;	/* one hold; const, as are all but the
					 * last */
	struct virtual_file *content;	/* one reference; NULL: a slice */
	struct view_group group;
	uint64_t entry;
	enum view view;
	bool slice, grouped;
	TAILQ_ENTRY(named_inode) order;	/* guarded by the lock of the inodes */
	unsigned ndim;
	uint64_t numbers[];		/* offsets, then sizes */
};

static struct named_inode *named_from(struct inode *inode)
{
	return (struct named_inode *)(void *)inode;
}

static struct view_inode load_named(struct inode *inode,
				    struct view_file *ret_file)
{
	const struct named_inode *named = named_from(inode);
	struct box *box = &ret_file->selection;
	size_t size = named->ndim * sizeof(named->numbers[0]);

	*ret_file = (struct view_file){
		.view = named->view, .slice = named->slice,
		.grouped = named->grouped, .entry = named->entry,
		.group = named->group, .content = named->content,
		.selection.ndim = named->ndim,
	};
	memcpy(box->offset, named->numbers, size);
	memcpy(box->size, named->numbers + named->ndim, size);
	return (struct view_inode){ *inode, named->mounted };
}

static void destroy_named(struct namespace *ns, struct inode *inode)
{
	struct named_inode *named = named_from(inode);

	pthread_mutex_lock(&ns->inodes.lock);
	TAILQ_REMOVE(&ns->named, named, order);
	ns->named_count--;
	pthread_mutex_unlock(&ns->inodes.lock);
	inode_table_put_mounted(&ns->inodes, named->mounted);
	virtual_file_put(named->content);
	free(named);
}

static const struct file_ops named_ops = {
	.base = { FILE_OPS, .destroy = destroy_named }, .load = load_named,
};

struct wanted_named {
	struct namespace *ns;
	struct mounted *mounted;
	const struct view_file *file;
};

static struct known_inode *make_named(const void *what)
{
	const struct wanted_named *wanted = what;
	const struct view_file *file = wanted->file;
	unsigned ndim = file->grouped ? 0 : file->selection.ndim;
	size_t size = ndim * sizeof(uint64_t);
	struct named_inode *named = calloc(1, sizeof(*named) + 2 * size);

	if (!named)
		return NULL;
	named->known.base.ops = &named_ops.base;
	named->mounted = wanted->mounted;
	named->mounted->holds++;
	named->content = file->content ? virtual_file_get(file->content) :
					 NULL;
	named->group = file->group;
	named->entry = file->entry;
	named->view = file->view;
	named->slice = file->slice;
	named->grouped = file->grouped;
	named->ndim = ndim;
	memcpy(named->numbers, file->selection.offset, size);
	memcpy(named->numbers + ndim, file->selection.size, size);
	TAILQ_INSERT_TAIL(&wanted->ns->named, named, order);
	wanted->ns->named_count++;
	wanted->ns->named_new++;
	return &named->known;
}

bool view_named_oldest(struct namespace *ns, uint64_t *ret_parent,
		       char ret_name[NAME_MAX + 1])
{
	struct named_inode *named;

	pthread_mutex_lock(&ns->inodes.lock);
	named = TAILQ_FIRST(&ns->named);
	if (named) {
		TAILQ_REMOVE(&ns->named, named, order);
		TAILQ_INSERT_TAIL(&ns->named, named, order);
		*ret_parent = named->known.parent_number;
		snprintf(ret_name, NAME_MAX + 1, "%s", named->known.name);
	}
	pthread_mutex_unlock(&ns->inodes.lock);
	return named;
}

/* How many the kernel should be asked to forget; when it has been asked, 0 for a
 * good while: what is open stays. */
static unsigned count_excess(struct namespace *ns)
{
	unsigned excess = 0;

	pthread_mutex_lock(&ns->inodes.lock);
	if (ns->named_count > NAMED_MAX && ns->named_new > NAMED_MAX / 2) {
		excess = ns->named_count - NAMED_MAX / 2;
		ns->named_new = 0;
	}
	pthread_mutex_unlock(&ns->inodes.lock);
	return excess;
}

/*
 * Of what hf/ shows nothing may be missing: transformers would go on with
 * random weights.
 */
static int make_group(struct mounted *mounted, struct view_file *file)
{
	bool whole = file->view == VIEW_HF;
	int error = view_group_file(mounted->checkpoint, &file->group, whole,
				    &file->content);

	if (error == -EIO && whole &&
	    !atomic_exchange(&mounted->refused, true))
		log_line(LOG_LEVEL_ERROR, "%s%shf/%s: tensors are missing or cannot be read",
			 mounted->path, *mounted->path ? "/" : "",
			 view_hf_name);
	return error;
}

/* A slice, or a group, whose content is made when it is new. */
static int get_named(struct namespace *ns, struct mounted *mounted,
		     const struct inode_name *name, struct view_file *file,
		     struct known_inode **ret_known)
{
	const struct wanted_named named = { ns, mounted, file };
	const struct inode_wanted wanted = { NULL, make_named, &named };
	unsigned excess;
	int error = file->grouped ? make_group(mounted, file) : 0;

	if (error)
		return error;
	*ret_known = inode_table_get(&ns->inodes, name, &wanted);
	virtual_file_put(file->content);
	if (!*ret_known)
		return -ENOMEM;
	excess = count_excess(ns);
	if (excess > 0 && ns->drop_names)
		ns->drop_names(ns->drop_context, excess);
	return 0;
}

/* What was looked up once more: that is taken back on failure. */
static int tell_known(struct namespace *ns, struct known_inode *known,
		      bool nowait, struct attr *ret_attr)
{
	int error = file_status(ns, &known->base, nowait, ret_attr);

	if (error)
		inode_table_forget(&ns->inodes, known->base.number, 1);
	return error;
}

/* ---- lookup -------------------------------------------------------------- */

/* Beside the model: a file of the folder of assets, else of the
 * checkpoint. */
static int lookup_beside(struct namespace *ns, const struct mounted *mounted,
			 const char *name, bool nowait, struct attr *ret_attr)
{
	struct known_inode *folder;
	int error;

	if (!view_hf_shows(name))
		return -ENOENT;
	if (nowait)
		return -EAGAIN;
	error = asset_inode_get(ns, name, ret_attr);
	if (!error || error == -ENOMEM)
		return error;
	folder = inode_table_get_number(&ns->inodes, mounted->folder);
	if (!folder)
		return -ESTALE;
	error = folder->base.ops->lookup(ns, &folder->base, name, nowait,
					 ret_attr);
	inode_table_put(&ns->inodes, mounted->folder);
	if (!error && !S_ISREG(ret_attr->status.st_mode)) {
		inode_table_forget(&ns->inodes, ret_attr->status.st_ino, 1);
		error = -ENOENT;
	}
	return error;
}

static bool parse_name(const struct namespace *ns, struct mounted *mounted,
		       enum view view, const char *name,
		       struct view_file *ret_file)
{
	const struct catalog *catalog = mounted->checkpoint->catalog;
	const struct array *groups;

	if (view == VIEW_SAFETENSORS &&
	    mounted_groups(mounted, &groups) == 0 &&
	    view_parse_listed(catalog, groups, name, ret_file))
		return true;
	if (view != VIEW_HF)
		return view_parse(catalog, view, name, ret_file);
	*ret_file = (struct view_file){ .view = VIEW_HF, .grouped = true };
	return strcmp(name, view_hf_name) == 0 &&
	       view_group_root(catalog, ns->hf_root, &ret_file->group);
}

static int lookup(struct namespace *ns, struct inode *inode, const char *name,
		  bool nowait, struct attr *ret_attr)
{
	struct view_inode *folder = from_inode(inode);
	struct mounted *mounted = folder->mounted;
	enum view view = mounted_view(folder);
	struct known_inode *known;
	struct inode_name where;
	struct view_file file;
	int error;

	if (atomic_load(&mounted->retired))
		return -ESTALE;
	if (!parse_name(ns, mounted, view, name, &file))
		return view == VIEW_HF ? lookup_beside(ns, mounted, name,
						       nowait, ret_attr) :
					 -ENOENT;
	if (file.slice || file.grouped) {
		where = (struct inode_name){ NULL, folder->base.number, name };
		known = inode_table_get_known(&ns->inodes, &where);
		if (!known && file.grouped && nowait)
			return -EAGAIN;
		error = known ? 0 : get_named(ns, mounted, &where, &file,
					      &known);
		return error ? error : tell_known(ns, known, nowait, ret_attr);
	}
	error = mounted_file_status(mounted, &file, nowait, &ret_attr->status);
	if (error)
		return error;
	ret_attr->timeout_s = TIMEOUT_CONST_S;
	ret_attr->status.st_ino = mounted_file_number(mounted, &file);
	inode_table_look_up(&ns->inodes, ret_attr->status.st_ino);
	return 0;
}

/* ---- all kinds ----------------------------------------------------------- */

static const struct inode_ops folder_ops = {
	.status = view_status, .lookup = lookup, .open_folder = open_folder,
};

static const struct inode_ops text_ops = {
	.status = view_status, .open = open_text,
};

static const struct inode_ops link_ops = {
	.status = link_status, .link = read_link,
};

const struct inode_ops *const view_inode_ops[MOUNTED_KINDS] = {
	[MOUNTED_VIEW] = &folder_ops, [MOUNTED_TEXT] = &text_ops,
	[MOUNTED_LINK] = &link_ops, [MOUNTED_FILE] = &numbered_ops.base,
};
