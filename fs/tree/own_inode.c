/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/own_inode.h"

#include "fs/tree/folder_inode.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char views_name[] = "views";
static const char *const reports[] = { "status.json", "metrics" };

enum { REPORT_COUNT = sizeof(reports) / sizeof(reports[0]) };

static void destroy(struct namespace *ns, struct inode *inode)
{
	(void)ns;
	free(inode);
}

/* One of a kind that has nothing of its own. */
static struct known_inode *make(const void *what)
{
	struct known_inode *known = calloc(1, sizeof(*known));

	if (known)
		known->base.ops = what;
	return known;
}

/* What is called @name in @parent, of these operations, with one more lookup. */
static int get(struct namespace *ns, struct known_inode *parent,
	       const char *name, const struct inode_ops *ops,
	       struct attr *ret_attr)
{
	const struct inode_name where = inode_name_in(parent, name);
	const struct inode_wanted wanted = { NULL, make, ops };
	struct known_inode *known = inode_table_get(&ns->inodes, &where,
						    &wanted);
	int error;

	if (!known)
		return -ENOMEM;
	error = ops->status(ns, &known->base, false, ret_attr);
	if (error)
		inode_table_forget(&ns->inodes, known->base.number, 1);
	return error;
}

/* ---- reports ------------------------------------------------------------- */

static int report_status(struct namespace *ns, struct inode *inode, bool nowait,
			 struct attr *ret_attr)
{
	(void)nowait;
	return folder_own_attr(ns, S_IFREG, inode->number, ret_attr);
}

/* As it is now. */
static int report_open(struct namespace *ns, struct inode *inode, bool nowait,
		       struct open_file **ret_file)
{
	const struct known_inode *known = (const void *)inode;
	struct array text = { .data = NULL };

	(void)nowait;
	if (ns->report(ns->report_context, known->name, &text))
		return open_file_text(&ns->opens, inode->number, &text, ret_file);
	array_finish(&text);
	return -ENOMEM;
}

static const struct inode_ops report_ops = {
	.status = report_status, .open = report_open, .destroy = destroy,
};

/* ---- MNT/.ckptfs --------------------------------------------------------- */

static int own_status(struct namespace *ns, struct inode *inode, bool nowait,
		      struct attr *ret_attr)
{
	(void)nowait;
	return folder_own_attr(ns, S_IFDIR, inode->number, ret_attr);
}

static int own_lookup(struct namespace *ns, struct inode *inode,
		      const char *name, bool nowait, struct attr *ret_attr)
{
	struct known_inode *own = (void *)inode;

	(void)nowait;
	if (strcmp(name, views_name) == 0)
		return mirror_inode_get(ns, own, name, ns->top, ret_attr);
	if (!ns->report || !ns->report(ns->report_context, name, NULL))
		return -ENOENT;
	return get(ns, own, name, &report_ops, ret_attr);
}

static int own_open(struct namespace *ns, struct inode *inode, bool nowait,
		    struct open_folder **ret_folder)
{
	struct name_list names = { .names.size = 0 };
	int error = name_list_add(&names, views_name, S_IFDIR, 0);
	unsigned i;

	(void)inode;
	(void)nowait;
	for (i = 0; ns->report && i < REPORT_COUNT && !error; i++)
		error = name_list_add(&names, reports[i], S_IFREG, 0);
	if (!error)
		return open_folder_names(&ns->opens, &names, NULL, NULL, ret_folder);
	name_list_finish(&names);
	return error;
}

static const struct inode_ops own_ops = {
	.status = own_status, .lookup = own_lookup, .open_folder = own_open,
	.destroy = destroy,
};

/* ---- the top ------------------------------------------------------------- */

static int top_lookup(struct namespace *ns, struct inode *inode,
		      const char *name, bool nowait, struct attr *ret_attr)
{
	return strcmp(name, NAMESPACE_OWN) == 0 ?
	       get(ns, &ns->top->known, name, &own_ops, ret_attr) :
	       folder_inode_lookup(ns, inode, name, nowait, ret_attr);
}

static const struct inode_ops top_ops = {
	.status = folder_inode_status, .lookup = top_lookup,
	.open_folder = folder_inode_open, .destroy = folder_destroy,
};

static struct known_inode *make_top(const void *what)
{
	struct folder *top = folder_create(&top_ops);

	(void)what;
	return top ? &top->known : NULL;
}

int own_inode_make_top(struct namespace *ns)
{
	const struct inode_name where = { .name = "" };
	const struct inode_wanted wanted = { NULL, make_top, NULL };

	ns->top = (void *)inode_table_get_held(&ns->inodes, &where, &wanted);
	if (!ns->top)
		return -ENOMEM;
	assert(ns->top->known.base.number == ROOT_INODE);
	/* The kernel knows it without having asked. */
	inode_table_look_up(&ns->inodes, ROOT_INODE);
	return 0;
}
