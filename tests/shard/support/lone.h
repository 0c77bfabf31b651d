/* SPDX-License-Identifier: Apache-2.0 */
/* The store that is one folder, with something beside it: one of a program. */
#ifndef SUPPORT_LONE_H
#define SUPPORT_LONE_H

#include "support/folder.h"
#include "support/storing.h"

extern struct test_folder lone_top;	/* has the folder "store" and the file
					 * "outside" */
extern struct test_folder lone_in;	/* that folder; only its fd */
extern struct store *lone;

/* For each test. */
int lone_setup(void **state);
int lone_teardown(void **state);

void lone_folder(const char *path);
void lone_write(const char *path, const char *text);
void lone_link(const char *target, const char *path);

/* From the top of the store. */
struct store_path lone_at(const char *path);
/* What is there: 0 or -errno. */
int lone_find(struct store_path path, struct stat *ret_status);
void lone_check_type(struct store_path path, mode_t type);
void lone_check_no(struct store_path path, int error);

/* What a checkpoint in @folder means by @name has @text, or is not to be
 * had. */
void lone_check_in(struct store_folder *folder, const char *name,
		   const char *text);
void lone_check_in_error(struct store_folder *folder, const char *name,
			 int error);

#endif
