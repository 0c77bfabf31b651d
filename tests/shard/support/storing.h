/* SPDX-License-Identifier: Apache-2.0 */
/* What tests ask of a store again and again. */
#ifndef SUPPORT_STORING_H
#define SUPPORT_STORING_H

#include "shard/store/store.h"

/* Room for what a small file has, and a zero behind it. */
enum { STORING_TEXT = 64 };

/* All of an open file from its start. 0 or -errno. */
int storing_read(struct stored_file *file, bool exact,
		 char ret_text[STORING_TEXT]);
/* The same of a file that is opened for that. */
int storing_read_path(struct store *store, struct store_path path,
		      char ret_text[STORING_TEXT]);
/* It is there, and has @text. */
void storing_check(struct store *store, struct store_path path,
		   const char *text);
/* Opening it ends with @error. */
void storing_check_error(struct store *store, struct store_path path,
			 int error);

/* A folder that is there; the caller puts it. */
struct store_folder *storing_folder(struct store *store, const char *path);
/* What it has now is @names, each with a line end, in this order. */
void storing_check_names(struct store_folder *folder, const char *names);

#endif
