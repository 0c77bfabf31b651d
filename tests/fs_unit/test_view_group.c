/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tensors go together into one file: paths as a checkpoint has them,
 * against the rule spelled out part by part. And the names of the files.
 */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/header_in.h"
#include "support/reading.h"

#include "fs/view/view.h"
#include "fs/view/view_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 24, DEPTH = 5, TEXT = 64 };

/* A tensor by the parts of its path; without any, its name has no path. */
struct leaf {
	unsigned depth;
	const char *parts[DEPTH];
	char name[TEXT];
	uint32_t ends[DEPTH];	/* of each part in the name */
};

struct tree {
	unsigned count;
	struct leaf leaves[MOST];
	struct catalog *catalog;
};

static struct dice dice;

/* Join the parts by dots. False: some leaf is called so already. */
static bool add_leaf(struct tree *tree, unsigned depth,
		     const char *const *parts)
{
	struct leaf *leaf = &tree->leaves[tree->count];
	unsigned i;

	*leaf = (struct leaf){ .depth = depth };
	for (i = 0; i < depth || i == 0; i++) {
		leaf->parts[i] = parts[i];
		if (i > 0)
			strcat(leaf->name, ".");
		strcat(leaf->name, parts[i]);
		leaf->ends[i] = (uint32_t)strlen(leaf->name);
	}
	for (i = 0; i < tree->count; i++)
		if (strcmp(tree->leaves[i].name, leaf->name) == 0)
			return false;
	tree->count++;
	return true;
}

#define LEAF(tree, depth, ...) \
	assert_true(add_leaf(tree, depth, (const char *const[]){ __VA_ARGS__ }))

static void plant(struct tree *tree)
{
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct box shape = BOX1(0, 2);
	unsigned i;

	for (i = 0; i < tree->count; i++) {
		const struct leaf *leaf = &tree->leaves[i];
		const struct catalog_tensor tensor = {
			.name = leaf->name, .name_size = strlen(leaf->name),
			.dtype = DTYPE_F32, .shape = shape,
			.path = leaf->ends, .depth = leaf->depth,
		};
		struct fault fault;

		assert_int_equal(catalog_builder_begin(builder, &tensor,
						       &fault), 0);
		catalog_out_shard(builder, shape, "f", 8 * i, 8);
		catalog_out_end(builder);
	}
	tree->catalog = catalog_out_finish(builder);
}

/* The leaves whose first @parts parts are @key when joined, and how many. */
static unsigned below(const struct tree *tree, const char *key,
		      bool found[MOST])
{
	unsigned i, j, count = 0;

	for (i = 0; i < tree->count; i++) {
		const struct leaf *leaf = &tree->leaves[i];

		found[i] = false;
		for (j = 0; j + 1 < leaf->depth; j++)
			found[i] |= leaf->ends[j] == strlen(key) &&
				    memcmp(leaf->name, key,
					   leaf->ends[j]) == 0;
		count += found[i];
	}
	return count;
}

static unsigned flat(const struct tree *tree, bool found[MOST])
{
	unsigned i, count = 0;

	for (i = 0; i < tree->count; i++)
		count += found[i] = tree->leaves[i].depth < 2;
	return count;
}

/* Some path of more than one part begins with @name. */
static bool has_key(const struct tree *tree, const char *name)
{
	unsigned i;

	for (i = 0; i < tree->count; i++)
		if (tree->leaves[i].depth > 1 &&
		    strcmp(tree->leaves[i].parts[0], name) == 0)
			return true;
	return false;
}

static bool in_header(const struct header_in *header, const char *name)
{
	uint64_t i;

	for (i = 0; i < header->count; i++)
		if (strcmp(header->tensors[i].name, name) == 0)
			return true;
	return false;
}

/* The file of @group holds the leaves @found, less @strip bytes of each
 * name. */
static void check_image(const struct tree *tree, const struct view_group *group,
			const bool found[MOST], size_t strip)
{
	struct reply *reply = reply_create();
	struct replica there = { .pin = { .inode = 1, .size = UINT64_MAX } };
	struct placed_file file = { .count = 1 };
	struct placement placement = { .files = &file, .replicas = &there };
	struct checkpoint checkpoint = { .catalog = tree->catalog,
					 .placement = &placement };
	struct header_in header;
	struct virtual_file *content;
	unsigned i, count = 0;

	assert_non_null(reply);
	assert_true(tree->catalog->file_count <= 1);
	assert_int_equal(view_group_file(&checkpoint, group, false, &content),
			 0);
	assert_int_equal(reading_file(content, NULL, 0,
				      virtual_file_header_size(content),
				      reply),
			 0);
	header_in_parse(&header, reply->data, reply->size);
	for (i = 0; i < tree->count; i++) {
		count += found[i];
		if (found[i])
			assert_true(in_header(&header,
					      tree->leaves[i].name + strip));
	}
	assert_int_equal(header.count, count);
	assert_int_equal(virtual_file_size(content),
			 virtual_file_header_size(content) + 8 * count);
	header_in_free(&header);
	reply_destroy(reply);
	virtual_file_put(content);
}

static bool find(const struct tree *tree, const char *name,
		 struct view_group *ret_group)
{
	struct array groups = { .data = NULL };
	bool found;

	assert_int_equal(view_group_list(tree->catalog, &groups), 0);
	found = view_group_find_listed(tree->catalog, &groups, name,
				       strlen(name), ret_group) ||
		view_group_find(tree->catalog, name, strlen(name), ret_group);
	array_finish(&groups);
	return found;
}

/* A file of this name holds what is below @key; "": what is flat. */
static void check_file(const struct tree *tree, const char *name,
		       const char *key)
{
	struct view_group group;
	bool found[MOST];

	if (!find(tree, name, &group))
		fail_msg("no %s", name);
	if (*key)
		below(tree, key, found);
	else
		flat(tree, found);
	check_image(tree, &group, found, *key ? strlen(key) + 1 : 0);
}

static void check_none(const struct tree *tree, const char *name)
{
	struct view_group group;

	if (find(tree, name, &group))
		fail_msg("%s is there", name);
}

/* The names that are listed are these, with NULL at the end. */
static void check_list(const struct tree *tree, const char *const *names)
{
	struct array groups = { .data = NULL };
	size_t i, count;

	assert_int_equal(view_group_list(tree->catalog, &groups), 0);
	count = groups.size / sizeof(struct view_group);
	for (i = 0; i < count; i++) {
		const struct view_group *group =
			(const struct view_group *)(void *)groups.data + i;
		char name[NAME_ENCODED_MAX];
		int size = view_group_name(tree->catalog, group, name);

		assert_int_equal(size, strlen(name));
		assert_non_null(names[i]);
		assert_string_equal(name, names[i]);
	}
	assert_null(names[count]);
	array_finish(&groups);
}

#define LIST(tree, ...) \
	check_list(tree, (const char *const[]){ __VA_ARGS__, NULL })

/* ---- by hand ------------------------------------------------------------- */

static void two_dicts(void **state)
{
	struct tree tree = { .count = 0 };

	(void)state;
	LEAF(&tree, 3, "optim", "state", "0.exp_avg");
	LEAF(&tree, 2, "model", "layers.0.weight");
	LEAF(&tree, 2, "model", "norm");
	LEAF(&tree, 3, "optim", "state", "1");
	plant(&tree);
	LIST(&tree, "model", "optim");
	check_file(&tree, "model", "model");
	check_file(&tree, "optim", "optim");
	check_file(&tree, "optim.state", "optim.state");
	check_none(&tree, "model.layers");
	check_none(&tree, "model.layers.0");
	check_none(&tree, "model.norm");
	check_none(&tree, "mode");
	check_none(&tree, "model.");
	check_none(&tree, "");
	check_none(&tree, "_flat");
	catalog_put(tree.catalog);
}

/* Keys with dots are keys, and names that look like paths are none. */
static void dots_in_keys(void **state)
{
	struct tree tree = { .count = 0 };

	(void)state;
	LEAF(&tree, 2, "a.b", "c");
	LEAF(&tree, 3, "a", "x", "d");
	LEAF(&tree, 2, "a", "b.e");
	LEAF(&tree, 1, "x.y.z");
	LEAF(&tree, 0, "a.b.none");
	plant(&tree);
	LIST(&tree, "a", "a.b", "model");
	check_file(&tree, "a", "a");
	check_file(&tree, "a.b", "a.b");
	check_file(&tree, "a.x", "a.x");
	check_file(&tree, "model", "");
	check_none(&tree, "x");
	check_none(&tree, "x.y");
	catalog_put(tree.catalog);
}

static void flat_beside_a_key_called_model(void **state)
{
	struct tree tree = { .count = 0 };

	(void)state;
	LEAF(&tree, 1, "step");
	LEAF(&tree, 2, "model", "w");
	plant(&tree);
	LIST(&tree, "model", "_flat");
	check_file(&tree, "model", "model");
	check_file(&tree, "_flat", "");
	catalog_put(tree.catalog);
}

static void every_name_of_the_flat_ones_is_taken(void **state)
{
	struct tree tree = { .count = 0 };

	(void)state;
	LEAF(&tree, 1, "step");
	LEAF(&tree, 2, "model", "w");
	LEAF(&tree, 2, "_flat", "w");
	LEAF(&tree, 2, "__flat", "w");
	plant(&tree);
	LIST(&tree, "__flat", "_flat", "model", "___flat");
	check_file(&tree, "_flat", "_flat");
	check_file(&tree, "__flat", "__flat");
	check_file(&tree, "___flat", "");
	catalog_put(tree.catalog);
}

/* A tensor may be called model: that is no key. */
static void a_tensor_called_model(void **state)
{
	struct tree tree = { .count = 0 };

	(void)state;
	LEAF(&tree, 1, "model");
	LEAF(&tree, 2, "other", "w");
	plant(&tree);
	LIST(&tree, "other", "model");
	check_file(&tree, "model", "");
	catalog_put(tree.catalog);
}

static void names_are_encoded(void **state)
{
	struct tree tree = { .count = 0 };

	(void)state;
	LEAF(&tree, 2, "a/b", "w");
	LEAF(&tree, 2, "50%", "w");
	LEAF(&tree, 2, "", "w");
	LEAF(&tree, 3, "x[0]", "y/z", "w");
	plant(&tree);
	LIST(&tree, "%", "50%25", "a%2Fb", "x%5B0]");
	check_file(&tree, "a%2Fb", "a/b");
	check_file(&tree, "50%25", "50%");
	check_file(&tree, "x%5B0].y%2Fz", "x[0].y/z");
	check_none(&tree, "a/b");
	check_none(&tree, "50%");
	catalog_put(tree.catalog);
}

static void a_key_that_is_cut(void **state)
{
	static char key[TEXT * 4], name[TEXT * 8];
	struct notes notes;
	struct catalog_builder *builder = catalog_out_create(&notes);
	struct box shape = BOX1(0, 2);
	struct catalog_tensor tensor = { .dtype = DTYPE_F32, .depth = 2,
					 .shape = shape };
	uint32_t end = 200;
	char encoded[NAME_ENCODED_MAX];
	struct catalog *catalog;
	struct fault fault;
	struct view_group group;

	(void)state;
	memset(key, 'k', end);
	snprintf(name, sizeof(name), "%s.w", key);
	tensor.name = name;
	tensor.name_size = strlen(name);
	tensor.path = &end;
	assert_int_equal(catalog_builder_begin(builder, &tensor, &fault), 0);
	catalog_out_shard(builder, shape, "f", 0, 8);
	catalog_out_end(builder);
	catalog = catalog_out_finish(builder);
	assert_true(name_encode(key, end, encoded) > LIMIT_ENCODED_SIZE);
	assert_true(view_group_find(catalog, encoded, strlen(encoded), &group));
	assert_int_equal(group.key_size, end);
	view_group_name(catalog, &group, name);
	assert_string_equal(name, encoded);
	assert_false(view_group_find(catalog, key, end, &group));
	catalog_put(catalog);
}

static void check_root(const struct tree *tree, const char *key,
		       const char *below_key)
{
	struct view_group group;
	bool found[MOST];

	assert_true(view_group_root(tree->catalog, key, &group));
	if (below_key)
		below(tree, below_key, found);
	else
		flat(tree, found);
	check_image(tree, &group, found,
		    below_key ? strlen(below_key) + 1 : 0);
}

static void what_transformers_should_load(void **state)
{
	struct tree tree = { .count = 0 }, other = { .count = 0 };
	struct view_group group;

	(void)state;
	LEAF(&tree, 2, "model", "w");
	LEAF(&tree, 3, "app", "model", "v");
	LEAF(&tree, 1, "step");
	plant(&tree);
	check_root(&tree, NULL, "model");
	check_root(&tree, "app.model", "app.model");
	check_root(&tree, "app", "app");
	assert_false(view_group_root(tree.catalog, "app.mod", &group));
	assert_false(view_group_root(tree.catalog, "step", &group));
	assert_false(view_group_root(tree.catalog, "", &group));
	catalog_put(tree.catalog);
	LEAF(&other, 2, "optim", "w");
	LEAF(&other, 1, "model.embed");
	LEAF(&other, 0, "step");
	plant(&other);
	check_root(&other, NULL, NULL);
	assert_false(view_group_root(other.catalog, "model", &group));
	catalog_put(other.catalog);
}

static void nothing_at_all(void **state)
{
	struct tree tree = { .count = 0 };
	struct view_group group;

	(void)state;
	plant(&tree);
	check_list(&tree, (const char *const[]){ NULL });
	check_none(&tree, "model");
	assert_false(view_group_root(tree.catalog, NULL, &group));
	catalog_put(tree.catalog);
}

/* ---- at random ----------------------------------------------------------- */

static const char *const words[] = {
	"a", "b", "a.b", "b.a", "model", "_flat", "", "model.a",
};

static void make_tree(struct tree *tree)
{
	unsigned tries = (unsigned)dice_below(&dice, MOST), i;

	*tree = (struct tree){ .count = 0 };
	while (tries-- > 0) {
		unsigned depth = (unsigned)dice_below(&dice, DEPTH + 1);
		const char *parts[DEPTH];

		for (i = 0; i < DEPTH; i++)
			parts[i] = words[dice_below(&dice, COUNT_OF(words))];
		add_leaf(tree, depth, parts);
	}
	plant(tree);
}

/* Keys of different depths are spelled like @key. */
static bool is_ambiguous(const struct tree *tree, const char *key)
{
	unsigned depths = 0, i, j;

	for (i = 0; i < tree->count; i++)
		for (j = 0; j + 1 < tree->leaves[i].depth; j++)
			if (tree->leaves[i].ends[j] == strlen(key) &&
			    memcmp(tree->leaves[i].name, key,
				   strlen(key)) == 0)
				depths |= 1u << j;
	return (depths & (depths - 1)) != 0;
}

/* Whatever is a key of some path is a file with what is below it. */
static void check_keys(const struct tree *tree)
{
	char key[TEXT], name[NAME_ENCODED_MAX];
	unsigned i, j;

	for (i = 0; i < tree->count; i++)
		for (j = 0; j + 1 < tree->leaves[i].depth; j++) {
			snprintf(key, sizeof(key), "%.*s",
				 (int)tree->leaves[i].ends[j],
				 tree->leaves[i].name);
			name_encode(key, strlen(key), name);
			if (*key && !is_ambiguous(tree, key))
				check_file(tree, name, key);
		}
}

/* All leaves are in the files that are listed, each in one. */
static void check_listed(const struct tree *tree)
{
	struct array groups = { .data = NULL };
	const struct view_group *group;
	bool found[MOST];
	size_t i;

	assert_int_equal(view_group_list(tree->catalog, &groups), 0);
	for (i = 0; i < groups.size / sizeof(*group); i++) {
		char name[NAME_ENCODED_MAX], key[TEXT];
		struct view_group same;

		group = (const struct view_group *)(void *)groups.data + i;
		snprintf(key, sizeof(key), "%.*s", (int)group->key_size,
			 group->key);
		view_group_name(tree->catalog, group, name);
		if (!group->flat && is_ambiguous(tree, key))
			continue;
		assert_true(find(tree, name, &same));
		assert_int_equal(same.flat, group->flat);
		if (group->flat)
			assert_true(flat(tree, found) > 0);
		else
			assert_true(below(tree, key, found) > 0 &&
				    has_key(tree, key));
		check_image(tree, &same, found,
			    group->flat ? 0 : strlen(key) + 1);
	}
	array_finish(&groups);
}

static void random_trees(void **state)
{
	unsigned i;

	(void)state;
	for (i = 0; i < 500; i++) {
		struct tree tree;
		bool found[MOST];

		make_tree(&tree);
		check_keys(&tree);
		check_listed(&tree);
		if (flat(&tree, found))
			check_file(&tree, !has_key(&tree, "model") ? "model" :
				   has_key(&tree, "_flat") ? "__flat" :
				   "_flat", "");
		catalog_put(tree.catalog);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_dicts),
		cmocka_unit_test(dots_in_keys),
		cmocka_unit_test(flat_beside_a_key_called_model),
		cmocka_unit_test(every_name_of_the_flat_ones_is_taken),
		cmocka_unit_test(a_tensor_called_model),
		cmocka_unit_test(names_are_encoded),
		cmocka_unit_test(a_key_that_is_cut),
		cmocka_unit_test(what_transformers_should_load),
		cmocka_unit_test(nothing_at_all),
		cmocka_unit_test(random_trees),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("group", tests, NULL, NULL);
}
