/* SPDX-License-Identifier: Apache-2.0 */
/* The views of a checkpoint: which file names there are, and what they mean.
 * Pure but for view_object, view_object_json and view_tensors_json. */
#ifndef FS_VIEW_VIEW_H
#define FS_VIEW_VIEW_H

#include "fs/view/view_group.h"
#include "shard/checkpoint/checkpoint.h"

enum view {
	VIEW_TENSORS,	/* folder: NAME, NAME[slice] */
	VIEW_NPY,	/* folder: NAME.npy, NAME[slice].npy */
	VIEW_F32,	/* folder: likewise, of floating types, as float32 */
	VIEW_SAFETENSORS, /* folder: TOP.safetensors; NAME.safetensors and
			   * NAME[slice].safetensors by lookup */
	VIEW_HF,	/* folder: model.safetensors, and stored files */
	VIEW_OBJECTS,	/* folder: NAME.pt, NAME.json */
	VIEW_JSON,	/* the file tensors.json */
	VIEW_COUNT,
};

/* "tensors", ...; terminated, VIEW_COUNT of them. */
extern const char *const view_names[VIEW_COUNT];

/* The view called @name; -1: none. */
int view_from_name(const char *name);

/* One file of a view folder. */
struct view_file {
	enum view view;
	bool json;		/* NAME.json, of an object */
	bool slice;		/* only part of the tensor */
	bool grouped;		/* `group`, and neither entry nor selection */
	uint64_t entry;		/* index in the catalog */
	struct box selection;	/* all of the entry, unless a slice */
	struct view_group group;
	struct virtual_file
		*content; /* of a group, once it is made; who keeps the
				 * view_file says whose reference it is */
};

/* The whole file of an entry. */
void view_whole(const struct catalog *catalog, enum view view, uint64_t entry,
		bool json, struct view_file *ret_file);

/* What @name means in the folder @view, but for VIEW_HF, and in
 * VIEW_SAFETENSORS but for the groups that are listed. False: nothing. Whether
 * an object has a NAME.json is not known here. */
bool view_parse(const struct catalog *catalog, enum view view,
		const char *name, struct view_file *ret_file);

/* Is the tensor @entry listed in the folder @view? */
bool view_lists(const struct catalog *catalog, enum view view, uint64_t entry);

/* The file name of a whole file, at most NAME_MAX bytes. */
void view_print(const struct catalog *catalog, const struct view_file *file,
		char ret_name[256]);

/* The group that the name of a file means, among @groups. */
bool view_parse_listed(const struct catalog *catalog,
		       const struct array *groups, const char *name,
		       struct view_file *ret_file);

/* The bytes of a file that is no JSON nor of a group, with a reference for the
 * caller. As virtual_file_raw. */
int view_content(const struct catalog *catalog, const struct view_file *file,
		 struct virtual_file **ret_content);
/* Their number; -EOPNOTSUPP, -ENOMEM. */
int view_size(const struct catalog *catalog, const struct view_file *file,
	      uint64_t *ret_size);

/* Is @name one of ours at all? */
bool view_is_attribute(const char *name);

/*
 * The value of the extended attribute @name (with "user.ckptfs.") of @file,
 * appended to @out. 0, -ENODATA, -E2BIG beyond 64 KiB, -ENOMEM.
 */
int view_attribute(const struct checkpoint *checkpoint,
		   const struct view_file *file, const char *name,
		   struct array *out);
/* The names of its attributes, each terminated. */
int view_attributes(const struct view_file *file, struct array *out);

/* Are the stored bytes of this object not what its NAME.pt shows, since they
 * are behind a stream extension? */
bool view_is_decoded(const struct catalog *catalog,
		     const struct view_file *file);
/* What it shows, decoded, appended to @out. */
int view_object(const struct checkpoint *checkpoint, uint64_t entry,
		struct array *out);

/* The JSON of the object @entry, appended to @out. 0, -EOPNOTSUPP when it is
 * no plain data, or as reads. */
int view_object_json(const struct checkpoint *checkpoint, uint64_t entry,
		     struct array *out);

/* tensors.json as an unlinked file in memory: a descriptor that the caller
 * closes, and its size in bytes. 0 or -errno. */
int view_tensors_json(const struct checkpoint *checkpoint, int *ret_fd,
		      uint64_t *ret_size);

#endif
