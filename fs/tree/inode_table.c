/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/inode_table.h"

#include <assert.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

static int compare_numbers(const void *a, const void *b)
{
	const struct known_inode *x = a, *y = b;

	return x->base.number < y->base.number ? -1 :
	       x->base.number > y->base.number;
}

static int compare_names(const void *a, const void *b)
{
	const struct known_inode *x = a, *y = b;

	if (x->parent_number != y->parent_number)
		return x->parent_number < y->parent_number ? -1 : 1;
	return strcmp(x->name, y->name);
}

static struct known_inode *find(void *const *tree,
				const struct known_inode *key,
				int (*compare)(const void *, const void *))
{
	struct known_inode **found = tfind(key, tree, compare);

	return found ? *found : NULL;
}

static struct known_inode *find_name_locked(const struct inode_table *table,
					    const struct inode_name *name)
{
	const struct known_inode key = {
		.parent_number = name->parent_number,
		.name = (char *)(uintptr_t)name->name,
	};

	return find(&table->by_name, &key, compare_names);
}

static struct known_inode *find_number_locked(const struct inode_table *table,
					      uint64_t number)
{
	const struct known_inode key = { .base.number = number };

	return find(&table->by_number, &key, compare_numbers);
}

/* ---- the end ------------------------------------------------------------- */

static void unlist_locked(struct inode_table *table, struct known_inode *inode)
{
	if (inode->listed)
		tdelete(inode, &table->by_name, compare_names);
	inode->listed = false;
}

/*
 * Take @inode out of the table if nobody has it any more, and then what it was
 * in, and so on: all to be destroyed without the lock, one behind the other by
 * `parent`.
 */
static struct known_inode *remove_locked(struct inode_table *table,
					 struct known_inode *inode)
{
	struct known_inode *dead = NULL, *parent;

	while (inode && inode->lookups == 0 && inode->holds == 0) {
		parent = inode->parent;
		unlist_locked(table, inode);
		tdelete(inode, &table->by_number, compare_numbers);
		inode->parent = dead;
		dead = inode;
		inode = parent;
		if (inode) {
			assert(inode->holds > 0);
			inode->holds--;
		}
	}
	return dead;
}

static void destroy(struct inode_table *table, struct known_inode *dead)
{
	struct known_inode *next;

	for (; dead; dead = next) {
		next = dead->parent;
		free(dead->name);
		dead->base.ops->destroy(table->ns, &dead->base);
	}
}

/* ---- by name ------------------------------------------------------------- */

static struct known_inode *add_locked(struct inode_table *table,
				      const struct inode_name *name,
				      struct known_inode *made)
{
	made->name = strdup(name->name);
	if (!made->name)
		return NULL;
	made->base.number = table->next_number++;
	made->parent_number = name->parent_number;
	if (!tsearch(made, &table->by_number, compare_numbers))
		return NULL;
	if (!tsearch(made, &table->by_name, compare_names)) {
		tdelete(made, &table->by_number, compare_numbers);
		return NULL;
	}
	made->listed = true;
	made->parent = name->parent;
	if (made->parent)
		made->parent->holds++;
	return made;
}

/* @ret_unused: what was made, and has no place; to be destroyed. */
static struct known_inode *get_locked(struct inode_table *table,
				      const struct inode_name *name,
				      const struct inode_wanted *wanted,
				      struct known_inode **ret_unused)
{
	struct known_inode *inode = find_name_locked(table, name), *made;

	if (inode && (!wanted->take || wanted->take(inode, wanted->what)))
		return inode;
	/* The kernel may still know the old one by its number. */
	if (inode)
		unlist_locked(table, inode);
	made = wanted->make(wanted->what);
	inode = made ? add_locked(table, name, made) : NULL;
	if (!inode)
		*ret_unused = made;
	return inode;
}

static struct known_inode *get(struct inode_table *table,
			       const struct inode_name *name,
			       const struct inode_wanted *wanted, bool held)
{
	struct known_inode *inode, *unused = NULL;

	pthread_mutex_lock(&table->lock);
	inode = get_locked(table, name, wanted, &unused);
	if (inode && held)
		inode->holds++;
	else if (inode)
		inode->lookups++;
	pthread_mutex_unlock(&table->lock);
	destroy(table, unused);
	return inode;
}

struct known_inode *inode_table_get(struct inode_table *table,
				    const struct inode_name *name,
				    const struct inode_wanted *wanted)
{
	return get(table, name, wanted, false);
}

struct known_inode *inode_table_get_held(struct inode_table *table,
					 const struct inode_name *name,
					 const struct inode_wanted *wanted)
{
	return get(table, name, wanted, true);
}

struct known_inode *inode_table_get_known(struct inode_table *table,
					  const struct inode_name *name)
{
	struct known_inode *inode;

	pthread_mutex_lock(&table->lock);
	inode = find_name_locked(table, name);
	if (inode)
		inode->lookups++;
	pthread_mutex_unlock(&table->lock);
	return inode;
}

/* ---- by number ----------------------------------------------------------- */

static struct mounted *find_mounted_locked(const struct inode_table *table,
					   uint64_t number)
{
	struct mounted *mounted;

	LIST_FOREACH(mounted, &table->mounted, link)
		if (number >= mounted->base &&
		    number - mounted->base < mounted->count)
			break;
	return mounted;
}

struct inode *inode_table_find(struct inode_table *table, uint64_t number,
			       struct view_inode *room)
{
	struct mounted *mounted = NULL;
	struct known_inode *inode;
	bool known;

	pthread_mutex_lock(&table->lock);
	inode = find_number_locked(table, number);
	if (!inode)
		mounted = find_mounted_locked(table, number);
	/* Others may hold what it has forgotten, but for the first one, which
	 * it has never asked for. */
	known = inode && (inode->lookups > 0 || number == ROOT_INODE);
	pthread_mutex_unlock(&table->lock);
	if (known)
		return &inode->base;
	if (!mounted)
		return NULL;
	mounted_inode(mounted, number, room);
	return &room->base;
}

struct known_inode *inode_table_get_number(struct inode_table *table,
					   uint64_t number)
{
	struct known_inode *inode;

	pthread_mutex_lock(&table->lock);
	inode = find_number_locked(table, number);
	if (inode)
		inode->holds++;
	pthread_mutex_unlock(&table->lock);
	return inode;
}

/* Nothing when it is still held. */
static struct mounted *remove_mounted_locked(struct mounted *mounted)
{
	if (mounted->lookups > 0 || mounted->holds > 0)
		return NULL;
	LIST_REMOVE(mounted, link);
	return mounted;
}

/* A change of counts of the inode, or the checkpoint, that has a number. */
struct change {
	uint64_t number;
	uint64_t lookups, holds;
	bool less;
};

static void count(uint64_t *counter, uint64_t change, bool less)
{
	/* What is let go was had. */
	assert(!less || change <= *counter);
	*counter += less ? -change : change;
}

static void change_counts(struct inode_table *table,
			  const struct change *change)
{
	struct known_inode *inode, *dead = NULL;
	struct mounted *mounted = NULL, *unmounted = NULL;
	uint64_t holds;

	pthread_mutex_lock(&table->lock);
	inode = find_number_locked(table, change->number);
	if (!inode)
		mounted = find_mounted_locked(table, change->number);
	if (inode) {
		holds = inode->holds;
		count(&inode->lookups, change->lookups, change->less);
		count(&holds, change->holds, change->less);
		inode->holds = (uint32_t)holds;
		dead = remove_locked(table, inode);
	} else if (mounted) {
		count(&mounted->lookups, change->lookups, change->less);
		count(&mounted->holds, change->holds, change->less);
		unmounted = remove_mounted_locked(mounted);
	}
	pthread_mutex_unlock(&table->lock);
	destroy(table, dead);
	mounted_destroy(unmounted);
}

void inode_table_look_up(struct inode_table *table, uint64_t number)
{
	const struct change change = { .number = number, .lookups = 1 };

	change_counts(table, &change);
}

void inode_table_forget(struct inode_table *table, uint64_t number,
			uint64_t lookups)
{
	const struct change change = { .number = number, .lookups = lookups,
				       .less = true };

	change_counts(table, &change);
}

void inode_table_hold(struct inode_table *table, uint64_t number)
{
	const struct change change = { .number = number, .holds = 1 };

	change_counts(table, &change);
}

void inode_table_put(struct inode_table *table, uint64_t number)
{
	const struct change change = { .number = number, .holds = 1,
				       .less = true };

	change_counts(table, &change);
}

/* ---- mounted checkpoints ------------------------------------------------- */

uint64_t inode_table_reserve(struct inode_table *table, uint64_t numbers)
{
	uint64_t base;

	pthread_mutex_lock(&table->lock);
	base = table->next_number;
	table->next_number += numbers;
	pthread_mutex_unlock(&table->lock);
	return base;
}

void inode_table_add_mounted_locked(struct inode_table *table,
				    struct mounted *mounted)
{
	mounted->holds = 1;
	LIST_INSERT_HEAD(&table->mounted, mounted, link);
}

void inode_table_put_mounted(struct inode_table *table, struct mounted *mounted)
{
	struct mounted *unmounted;

	pthread_mutex_lock(&table->lock);
	assert(mounted->holds > 0);
	mounted->holds--;
	unmounted = remove_mounted_locked(mounted);
	pthread_mutex_unlock(&table->lock);
	mounted_destroy(unmounted);
}

/* ---- life ---------------------------------------------------------------- */

void inode_table_init(struct inode_table *table, struct namespace *ns)
{
	*table = (struct inode_table){ .ns = ns,
					.next_number = ROOT_INODE };
	LIST_INIT(&table->mounted);
	pthread_mutex_init(&table->lock, NULL);
}

/* In the order of their numbers: each in front of those before. */
static void collect(const void *node, VISIT visit, void *context)
{
	struct known_inode *inode = *(struct known_inode *const *)node;
	struct known_inode **dead = context;

	if (visit != postorder && visit != leaf)
		return;
	inode->parent = *dead;
	*dead = inode;
}

static void keep(void *inode)
{
	(void)inode;
}

/* Whoever had them is gone. What refers to another one is younger. */
void inode_table_finish(struct inode_table *table)
{
	struct known_inode *dead = NULL;

	twalk_r(table->by_number, collect, &dead);
	tdestroy(table->by_number, keep);
	tdestroy(table->by_name, keep);
	table->by_number = table->by_name = NULL;
	destroy(table, dead);
	while (!LIST_EMPTY(&table->mounted)) {
		struct mounted *mounted = LIST_FIRST(&table->mounted);

		LIST_REMOVE(mounted, link);
		mounted_destroy(mounted);
	}
	pthread_mutex_destroy(&table->lock);
}
