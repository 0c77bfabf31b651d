/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/inode_table.h"

#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOT_INODE = 1 };

static int compare_inodes(const void *a, const void *b)
{
	const struct node *x = a, *y = b;

	return x->inode < y->inode ? -1 : x->inode > y->inode;
}

static uint64_t key_base(const struct node *node)
{
	return node->live ? node->live->base + node->file.view : 0;
}

static int compare_keys(const void *a, const void *b)
{
	const struct node *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (key_base(x) != key_base(y))
		return key_base(x) < key_base(y) ? -1 : 1;
	return strcmp(x->path, y->path);
}

static int compare_folders(const void *a, const void *b)
{
	const struct folder *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static struct node *find_node(void *const *tree, const struct node *key,
			      int (*compare)(const void *, const void *))
{
	struct node **found = tfind(key, tree, compare);

	return found ? *found : NULL;
}

/* ---- live checkpoints ---------------------------------------------------- */

static void put_live_locked(struct nodes *nodes, struct live *live,
			    uint64_t count, struct live **ret_dead)
{
	struct live **link;

	live->references -= count;
	if (live->references > 0)
		return;
	for (link = &nodes->lives; *link != live; link = &(*link)->next)
		;
	*link = live->next;
	*ret_dead = live;
}

static struct live *find_live_locked(struct nodes *nodes, uint64_t inode)
{
	struct live *live;

	for (live = nodes->lives; live; live = live->next)
		if (inode >= live->base && inode < live->base + live->count)
			return live;
	return NULL;
}

void nodes_hold(struct nodes *nodes, struct live *live)
{
	pthread_mutex_lock(&nodes->lock);
	live->references++;
	pthread_mutex_unlock(&nodes->lock);
}

struct live *nodes_live(struct nodes *nodes, struct folder *folder)
{
	struct live *live;

	pthread_mutex_lock(&nodes->lock);
	live = folder->live;
	if (live)
		live->references++;
	pthread_mutex_unlock(&nodes->lock);
	return live;
}

void nodes_put_live(struct nodes *nodes, struct live *live)
{
	struct live *dead = NULL;

	pthread_mutex_lock(&nodes->lock);
	put_live_locked(nodes, live, 1, &dead);
	pthread_mutex_unlock(&nodes->lock);
	live_destroy(dead);
}

int nodes_set_live(struct nodes *nodes, struct folder *folder,
		   struct checkpoint *checkpoint, struct live **ret_old)
{
	struct live *live = NULL, *old;
	uint64_t base;
	int error = 0;

	if (checkpoint) {
		pthread_mutex_lock(&nodes->lock);
		base = nodes->next_inode;
		nodes->next_inode += live_inode_count(checkpoint);
		pthread_mutex_unlock(&nodes->lock);
		live = live_create(checkpoint, folder->path, base);
		error = live ? 0 : -ENOMEM;
	}
	pthread_mutex_lock(&nodes->lock);
	old = folder->live;
	folder->live = live;
	if (live) {
		live->references = 1;
		live->next = nodes->lives;
		nodes->lives = live;
	}
	if (old)
		atomic_store(&old->retired, true);
	pthread_mutex_unlock(&nodes->lock);
	*ret_old = old;
	return error;
}

/* ---- folders ------------------------------------------------------------- */

static struct folder *get_folder_locked(struct nodes *nodes, const char *path)
{
	struct folder key = { .path = (char *)path }, **found, *folder;

	found = tfind(&key, &nodes->folders, compare_folders);
	if (found) {
		(*found)->references++;
		return *found;
	}
	folder = calloc(1, sizeof(*folder));
	if (!folder)
		return NULL;
	folder->path = strdup(path);
	if (!folder->path ||
	    !tsearch(folder, &nodes->folders, compare_folders)) {
		free(folder->path);
		free(folder);
		return NULL;
	}
	pthread_mutex_init(&folder->look_lock, NULL);
	folder->references = 1;
	return folder;
}

static void put_folder_locked(struct nodes *nodes, struct folder *folder,
			      struct live **ret_dead)
{
	if (!folder || --folder->references > 0)
		return;
	tdelete(folder, &nodes->folders, compare_folders);
	if (folder->live) {
		atomic_store(&folder->live->retired, true);
		put_live_locked(nodes, folder->live, 1, ret_dead);
	}
	pthread_mutex_destroy(&folder->look_lock);
	free(folder->path);
	free(folder);
}

struct folder *nodes_get_folder(struct nodes *nodes, const char *path)
{
	struct folder *folder;

	pthread_mutex_lock(&nodes->lock);
	folder = get_folder_locked(nodes, path);
	pthread_mutex_unlock(&nodes->lock);
	return folder;
}

void nodes_put_folder(struct nodes *nodes, struct folder *folder)
{
	struct live *dead = NULL;

	pthread_mutex_lock(&nodes->lock);
	put_folder_locked(nodes, folder, &dead);
	pthread_mutex_unlock(&nodes->lock);
	live_destroy(dead);
}

struct live *nodes_find_id(struct nodes *nodes, const struct catalog_id *id)
{
	struct live *live;

	pthread_mutex_lock(&nodes->lock);
	for (live = nodes->lives; live; live = live->next) {
		const struct catalog *catalog = live->checkpoint->catalog;

		if (catalog->hash[0] == id->hash[0] &&
		    catalog->hash[1] == id->hash[1] &&
		    catalog_folder(live->path) == id->folder &&
		    !atomic_load(&live->retired))
			break;
	}
	if (live)
		live->references++;
	pthread_mutex_unlock(&nodes->lock);
	return live;
}

/* ---- nodes --------------------------------------------------------------- */

/* Take what @key has but its path, which is copied. */
static struct node *make_node_locked(struct nodes *nodes,
				     const struct node *key)
{
	struct node *node = malloc(sizeof(*node));
	struct live *dead = NULL;

	if (!node)
		return NULL;
	*node = *key;
	node->path = strdup(key->path);
	if (node->kind == NODE_FOLDER || node->kind == NODE_MIRROR)
		node->folder = get_folder_locked(nodes, key->path);
	if (!node->path || (!node->folder && (node->kind == NODE_FOLDER ||
					      node->kind == NODE_MIRROR)))
		goto free_node;
	node->inode = nodes->next_inode++;
	if (!tsearch(node, &nodes->by_inode, compare_inodes))
		goto free_node;
	if (!tsearch(node, &nodes->by_key, compare_keys)) {
		tdelete(node, &nodes->by_inode, compare_inodes);
		goto free_node;
	}
	node->listed = true;
	if (node->live)
		node->live->references++;
	if (node->file.content)
		virtual_file_get(node->file.content);
	if (node->kind == NODE_NAMED) {
		TAILQ_INSERT_TAIL(&nodes->named, node, order);
		nodes->named_count++;
		nodes->named_new++;
	}
	return node;
free_node:
	put_folder_locked(nodes, node->folder, &dead);
	free(node->path);
	free(node);
	return NULL;
}

static void unlist_locked(struct nodes *nodes, struct node *node)
{
	if (node->listed)
		tdelete(node, &nodes->by_key, compare_keys);
	node->listed = false;
}

static void free_node_locked(struct nodes *nodes, struct node *node,
			     struct live **ret_dead)
{
	unlist_locked(nodes, node);
	tdelete(node, &nodes->by_inode, compare_inodes);
	if (node->kind == NODE_NAMED) {
		TAILQ_REMOVE(&nodes->named, node, order);
		nodes->named_count--;
	}
	if (node->live)
		put_live_locked(nodes, node->live, 1, ret_dead);
	put_folder_locked(nodes, node->folder, ret_dead);
	virtual_file_put(node->file.content);
	free(node->path);
	free(node);
}

/* Does the store still have what @node was made for? */
static bool same_identity(const struct node *node, const struct node *key)
{
	if (node->kind != NODE_FILE && node->kind != NODE_ASSET)
		return true;
	if (node->rank != key->rank || node->pin.device != key->pin.device ||
	    node->pin.inode != key->pin.inode)
		return false;
	return !(node->immutable || key->immutable) ||
	       pin_equal(&node->pin, &key->pin);
}

static struct node *get_node(struct nodes *nodes, const struct node *key)
{
	struct node *node;

	pthread_mutex_lock(&nodes->lock);
	node = find_node(&nodes->by_key, key, compare_keys);
	if (node && !same_identity(node, key)) {
		/* The kernel may still know the old one by its number. */
		unlist_locked(nodes, node);
		node = NULL;
	}
	if (!node)
		node = make_node_locked(nodes, key);
	if (node)
		node->lookups++;
	pthread_mutex_unlock(&nodes->lock);
	return node;
}

struct node *nodes_get(struct nodes *nodes, enum node_kind kind,
		       const char *path, const struct identity *identity)
{
	struct node key = { .kind = kind, .path = (char *)path };

	if (identity) {
		key.pin = identity->pin;
		key.rank = identity->rank;
		key.immutable = identity->immutable;
	}
	return get_node(nodes, &key);
}

struct node *nodes_get_named(struct nodes *nodes, struct live *live,
			     const char *name, const struct view_file *file)
{
	struct node key = { .kind = NODE_NAMED, .path = (char *)name,
			    .live = live, .file = *file };

	return get_node(nodes, &key);
}

struct node *nodes_find_named(struct nodes *nodes, struct live *live,
			      enum view view, const char *name)
{
	struct node key = { .kind = NODE_NAMED, .path = (char *)name,
			    .live = live, .file = { .view = view } };
	struct node *node;

	pthread_mutex_lock(&nodes->lock);
	node = find_node(&nodes->by_key, &key, compare_keys);
	if (node)
		node->lookups++;
	pthread_mutex_unlock(&nodes->lock);
	return node;
}

unsigned nodes_excess(struct nodes *nodes)
{
	unsigned excess = 0;

	pthread_mutex_lock(&nodes->lock);
	/* What is open stays: do not ask for that again and again. */
	if (nodes->named_count > NAMED_MAX &&
	    nodes->named_new > NAMED_MAX / 2) {
		excess = nodes->named_count - NAMED_MAX / 2;
		nodes->named_new = 0;
	}
	pthread_mutex_unlock(&nodes->lock);
	return excess;
}

bool nodes_oldest(struct nodes *nodes, struct named *ret_named)
{
	struct node *node;

	pthread_mutex_lock(&nodes->lock);
	node = TAILQ_FIRST(&nodes->named);
	if (node) {
		TAILQ_REMOVE(&nodes->named, node, order);
		TAILQ_INSERT_TAIL(&nodes->named, node, order);
		ret_named->parent = key_base(node);
		snprintf(ret_named->name, sizeof(ret_named->name), "%s",
			 node->path);
	}
	pthread_mutex_unlock(&nodes->lock);
	return node != NULL;
}

void nodes_hold_inode(struct nodes *nodes, uint64_t inode)
{
	struct node key = { .inode = inode }, *node;
	struct live *live;

	pthread_mutex_lock(&nodes->lock);
	node = find_node(&nodes->by_inode, &key, compare_inodes);
	live = node ? NULL : find_live_locked(nodes, inode);
	if (node)
		node->lookups++;
	else if (live)
		live->references++;
	pthread_mutex_unlock(&nodes->lock);
}

void nodes_forget(struct nodes *nodes, uint64_t inode, uint64_t count)
{
	struct node key = { .inode = inode }, *node;
	struct live *live, *dead = NULL;

	pthread_mutex_lock(&nodes->lock);
	node = find_node(&nodes->by_inode, &key, compare_inodes);
	if (node) {
		node->lookups -= count < node->lookups ? count : node->lookups;
		if (node->lookups == 0 && node->inode != ROOT_INODE &&
		    node->kind != NODE_HIDDEN)
			free_node_locked(nodes, node, &dead);
	} else {
		live = find_live_locked(nodes, inode);
		if (live)
			put_live_locked(nodes, live, count, &dead);
	}
	pthread_mutex_unlock(&nodes->lock);
	live_destroy(dead);
}

static void find_in_live(struct live *live, uint64_t inode,
			 struct place *place)
{
	uint64_t index = inode - live->base;

	place->live = live;
	if (index < VIEW_COUNT) {
		place->what = PLACE_VIEW;
		place->view = (enum view)index;
	} else if (index < 2 * VIEW_COUNT) {
		place->what = PLACE_LINK;
		place->view = (enum view)(index - VIEW_COUNT);
	} else {
		place->what = PLACE_FILE;
		live_file(live, inode, &place->file);
		place->view = place->file.view;
	}
}

int nodes_find(struct nodes *nodes, uint64_t inode, struct place *ret_place)
{
	struct node key = { .inode = inode }, *node;
	struct live *live = NULL;

	pthread_mutex_lock(&nodes->lock);
	node = find_node(&nodes->by_inode, &key, compare_inodes);
	if (!node)
		live = find_live_locked(nodes, inode);
	pthread_mutex_unlock(&nodes->lock);
	ret_place->node = node;
	ret_place->live = NULL;
	ret_place->what = PLACE_NODE;
	if (live) {
		find_in_live(live, inode, ret_place);
	} else if (node && node->kind == NODE_NAMED) {
		ret_place->node = NULL;
		ret_place->what = PLACE_FILE;
		ret_place->live = node->live;
		ret_place->view = node->file.view;
		ret_place->file = node->file;
	}
	return node || live ? 0 : -ESTALE;
}

int nodes_init(struct nodes *nodes)
{
	struct node root = { .kind = NODE_FOLDER, .path = (char *)"" };
	struct node hidden = { .kind = NODE_HIDDEN, .path = (char *)"" };

	*nodes = (struct nodes){ .next_inode = ROOT_INODE };
	TAILQ_INIT(&nodes->named);
	pthread_mutex_init(&nodes->lock, NULL);
	if (get_node(nodes, &root) && get_node(nodes, &hidden))
		return 0;
	nodes_finish(nodes);
	return -ENOMEM;
}

void nodes_finish(struct nodes *nodes)
{
	struct live *dead;

	while (nodes->by_inode) {
		dead = NULL;
		free_node_locked(nodes, *(struct node **)nodes->by_inode,
				 &dead);
		live_destroy(dead);
	}
	while (nodes->lives) {
		dead = nodes->lives;
		nodes->lives = dead->next;
		live_destroy(dead);
	}
	pthread_mutex_destroy(&nodes->lock);
}
