/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/view/view_group.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char model_name[] = "model";

static bool is_flat(const struct catalog_entry *entry)
{
	return entry->depth < 2;
}

/* Of how many parts of the path of @entry @key is made; 0: of none. */
static unsigned parts_of(const struct catalog *catalog,
			 const struct catalog_entry *entry, const char *key,
			 size_t size)
{
	unsigned parts = 1;

	if (!catalog_is_below(catalog, entry, key, size))
		return 0;
	while (catalog_path_size(catalog, entry, parts) < size)
		parts++;
	return parts;
}

static bool is_member(const struct catalog *catalog,
		      const struct catalog_entry *entry,
		      const struct view_group *group)
{
	if (group->flat)
		return is_flat(entry);
	return entry->depth > group->parts &&
	       catalog_path_size(catalog, entry, group->parts) ==
	       group->key_size &&
	       memcmp(catalog_text(catalog, entry->name), group->key,
		      group->key_size) == 0;
}

static bool find_flat(const struct catalog *catalog,
		      struct view_group *ret_group)
{
	uint64_t i;

	for (i = 0; i < catalog->tensor_count; i++)
		if (is_flat(catalog_entry(catalog, i))) {
			*ret_group =
				(struct view_group){ .key = "", .flat = true };
			return true;
		}
	return false;
}

/* A first part is called @name. */
static bool has_top(const struct catalog *catalog, const char *name)
{
	size_t size = strlen(name);
	uint64_t i;

	for (i = 0; i < catalog->tensor_count; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);

		if (!is_flat(entry) &&
		    catalog_path_size(catalog, entry, 1) == size &&
		    memcmp(catalog_text(catalog, entry->name), name, size) ==
		    0)
			return true;
	}
	return false;
}

/* `model`, `_flat`, `__flat`, ...: the first that no key has. */
static void flat_name(const struct catalog *catalog,
		      char ret_name[NAME_ENCODED_MAX])
{
	strcpy(ret_name, model_name);
	if (!has_top(catalog, ret_name))
		return;
	strcpy(ret_name, "_flat");
	while (has_top(catalog, ret_name) && strlen(ret_name) < 100) {
		memmove(ret_name + 1, ret_name, strlen(ret_name) + 1);
		ret_name[0] = '_';
	}
}

int view_group_name(const struct catalog *catalog,
		    const struct view_group *group,
		    char ret_name[NAME_ENCODED_MAX])
{
	if (!group->flat)
		return (int)name_encode(group->key, group->key_size, ret_name);
	flat_name(catalog, ret_name);
	return (int)strlen(ret_name);
}

static int compare_groups(const void *a, const void *b)
{
	const struct view_group *x = a, *y = b;
	size_t size = x->key_size < y->key_size ? x->key_size : y->key_size;
	int order = memcmp(x->key, y->key, size);

	return order ? order :
	       x->key_size < y->key_size ? -1 : x->key_size > y->key_size;
}

int view_group_list(const struct catalog *catalog, struct array *out)
{
	struct view_group group, *groups;
	size_t count, kept = 0, j;
	uint64_t i;
	int error = 0;

	for (i = 0; i < catalog->tensor_count && !error; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);

		if (is_flat(entry))
			continue;
		group = (struct view_group){
			.key = catalog_text(catalog, entry->name),
			.key_size = catalog_path_size(catalog, entry, 1),
			.parts = 1,
		};
		count = out->size / sizeof(group);
		groups = (void *)out->data;
		/* Neighbours share their key nearly always. */
		if (count == 0 ||
		    compare_groups(&groups[count - 1], &group) != 0)
			error = array_append(out, &group, sizeof(group));
	}
	if (error)
		return error;
	groups = (void *)out->data;
	count = out->size / sizeof(group);
	if (count > 1)
		qsort(groups, count, sizeof(group), compare_groups);
	for (j = 0; j < count; j++)
		if (j == 0 || compare_groups(&groups[kept - 1], &groups[j]))
			groups[kept++] = groups[j];
	out->size = kept * sizeof(group);
	return find_flat(catalog, &group) ?
	       array_append(out, &group, sizeof(group)) : 0;
}

/* Some part of the path of @entry ends such that what is before is @name. */
static bool match_entry(const struct catalog *catalog,
			const struct catalog_entry *entry, const char *name,
			size_t size, struct view_group *ret_group)
{
	const char *text = catalog_text(catalog, entry->name);
	char encoded[NAME_ENCODED_MAX];
	unsigned parts;

	for (parts = 1; parts < entry->depth; parts++) {
		size_t key_size = catalog_path_size(catalog, entry, parts);

		/* Encoding never makes a name shorter, unless it is cut. */
		if (key_size > size && size <= LIMIT_ENCODED_SIZE)
			break;
		if (name_encode(text, key_size, encoded) == size &&
		    memcmp(encoded, name, size) == 0) {
			*ret_group = (struct view_group){ .key = text,
							  .key_size = key_size,
							  .parts = parts };
			return true;
		}
	}
	return false;
}

/* Do the paths of both have the same parts but for the last? */
static bool same_parents(const struct catalog *catalog,
			 const struct catalog_entry *a,
			 const struct catalog_entry *b)
{
	size_t size;

	if (!a || a->depth != b->depth || b->depth < 2)
		return false;
	size = catalog_path_size(catalog, b, b->depth - 1);
	return memcmp(catalog_text(catalog, a->name + a->name_size),
		      catalog_text(catalog, b->name + b->name_size),
		      4 * (size_t)(b->depth - 1)) == 0 &&
	       memcmp(catalog_text(catalog, a->name),
		      catalog_text(catalog, b->name), size) == 0;
}

bool view_group_find_listed(const struct catalog *catalog,
			    const struct array *groups, const char *name,
			    size_t size, struct view_group *ret_group)
{
	const struct view_group *group = (const void *)groups->data;
	size_t count = groups->size / sizeof(*group), i;
	char encoded[NAME_ENCODED_MAX];

	for (i = 0; i < count; i++)
		if ((size_t)view_group_name(catalog, &group[i], encoded) ==
			    size &&
		    memcmp(encoded, name, size) == 0) {
			*ret_group = group[i];
			return true;
		}
	return false;
}

bool view_group_find(const struct catalog *catalog, const char *name,
		     size_t size, struct view_group *ret_group)
{
	const struct catalog_entry *last = NULL, *entry;
	uint64_t i;

	for (i = 0; i < catalog->tensor_count; i++) {
		entry = catalog_entry(catalog, i);
		if (!same_parents(catalog, last, entry) &&
		    match_entry(catalog, entry, name, size, ret_group))
			return true;
		last = entry;
	}
	return false;
}

bool view_group_root(const struct catalog *catalog, const char *key,
		     struct view_group *ret_group)
{
	const char *wanted = key ? key : model_name;
	size_t size = strlen(wanted);
	uint64_t i;

	for (i = 0; i < catalog->tensor_count; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);
		unsigned parts = parts_of(catalog, entry, wanted, size);

		if (parts == 0)
			continue;
		*ret_group = (struct view_group){
			.key = catalog_text(catalog, entry->name),
			.key_size = size,
			.parts = parts,
		};
		return true;
	}
	return !key && find_flat(catalog, ret_group);
}

int view_group_file(const struct checkpoint *checkpoint,
		    const struct view_group *group, bool whole,
		    struct virtual_file **ret_content)
{
	const struct catalog *catalog = checkpoint->catalog;
	struct array parts = { .data = NULL };
	uint64_t i;
	int error = whole && catalog->origin.lost ? -EIO : 0;

	for (i = 0; i < catalog->tensor_count && !error; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);
		struct virtual_file_part part = {
			.entry = i,
			.key = group->flat ? 0 : group->key_size + 1,
		};

		if (!is_member(catalog, entry, group))
			continue;
		/* Who maps the file dies of a read that fails. */
		part.left_out = !checkpoint_has(checkpoint, entry);
		error = whole && part.left_out ? -EIO :
			array_append(&parts, &part, sizeof(part));
	}
	if (!error)
		error = virtual_file_safetensors(
			catalog, (const void *)parts.data,
			parts.size / sizeof(struct virtual_file_part),
			ret_content);
	array_finish(&parts);
	return error;
}
