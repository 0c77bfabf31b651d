/* SPDX-License-Identifier: Apache-2.0 */
/* What lines about an entry are made of. Each appends; 0 or -ENOMEM. */
#ifndef FS_CLI_COLUMNS_H
#define FS_CLI_COLUMNS_H

#include "fs/cli/tool.h"

/* "BF16", what the checkpoint calls an unknown type, or "object". */
int columns_type(const struct catalog *catalog,
		 const struct catalog_entry *entry, struct array *out);
/* "[4096,1024]"; "-" for an object. */
int columns_shape(const struct catalog *catalog,
		  const struct catalog_entry *entry, struct array *out);

/* Members of an object, as in tensors.json: "name" to "file"; for what is not
 * a tensor without torch_dtype and shape. */
int columns_json(const struct catalog *catalog,
		 const struct catalog_entry *entry, struct array *out);
/* Members "dtype" to "nbytes", with @suffix behind each key. */
int columns_json_type(const struct catalog *catalog,
		      const struct catalog_entry *entry, const char *suffix,
		      struct array *out);

/* A double: the shortest text that is read as the same; null for what JSON has
 * no number for. */
int columns_json_double(double number, struct array *out);

/* Characters of UTF-8 text. */
size_t columns_width(const struct array *text);
/* @cell with blanks up to @width characters in front of it, or behind it. */
int columns_cell(const struct array *cell, size_t width, bool right,
		 struct array *out);

#endif
