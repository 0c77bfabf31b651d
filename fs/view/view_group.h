/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors that go together into one safetensors file: those below a key of
 * the state dict, by the paths that the checkpoint has for them, never by
 * splitting names. Those with a path of one part, or of none, are the flat
 * ones; their file is called `model`, unless a key has that name.
 */
#ifndef FS_VIEW_VIEW_GROUP_H
#define FS_VIEW_VIEW_GROUP_H

#include "shard/base/array.h"
#include "shard/base/name.h"
#include "shard/checkpoint/checkpoint.h"
#include "shard/read/virtual_file.h"

struct view_group {
	const char *key;	/* borrowed from the catalog; the flat ones
				 * have none */
	size_t key_size;	/* bytes */
	unsigned parts;		/* of the path that the key is made of */
	bool flat;
};

/* The groups of the first parts of all paths, and the flat one, as struct
 * group in the order of their names. 0 or -ENOMEM. */
int view_group_list(const struct catalog *catalog, struct array *out);

/* Its file name without the suffix, encoded as names are; returns its size. */
int view_group_name(const struct catalog *catalog,
		    const struct view_group *group,
		    char ret_name[NAME_ENCODED_MAX]);

/* The group of this name: among @groups, as view_group_list makes them. */
bool view_group_find_listed(const struct catalog *catalog,
			    const struct array *groups, const char *name,
			    size_t size, struct view_group *ret_group);
/* Likewise of any parts joined by dots. Looks at all tensors. */
bool view_group_find(const struct catalog *catalog, const char *name,
		     size_t size, struct view_group *ret_group);

/* What transformers should load: below @key, or, if that is NULL, the key
 * called `model`, else the flat ones. False: there are no such tensors. */
bool view_group_root(const struct catalog *catalog, const char *key,
		     struct view_group *ret_group);

/* The file, without what cannot be read: as virtual_file_safetensors. If it is
 * to be @whole, -EIO when something cannot, or is not there at all. */
int view_group_file(const struct checkpoint *checkpoint,
		    const struct view_group *group, bool whole,
		    struct virtual_file **ret_content);

#endif
