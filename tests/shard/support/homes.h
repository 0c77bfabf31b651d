/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ranks of union_fakes.h with real folders for stores, and the union that
 * the last one makes of them: ranks 2 and 3 are on this host, ranks 0 and 1 are
 * asked. Those keep files open as ranks do. What they are asked ends with
 * fakes[rank].error, unless that is 0. The clock by which folders are looked at
 * again stands still, so that programs are linked with --wrap=clock_gettime.
 */
#ifndef SUPPORT_HOMES_H
#define SUPPORT_HOMES_H

#include "support/folder.h"
#include "support/storing.h"
#include "support/union_fakes.h"

enum { FAR = 1, NEAR = 2, OWN = 3 };	/* ranks; 0 is asked as well */

extern struct test_folder homes[RANKS];
extern struct store *united;
/* What keeping a file ends with at all who are asked, and how many are
 * kept. */
extern int homes_hold_error;
extern unsigned homes_held;

/* For each test. */
int homes_setup(void **state);
int homes_teardown(void **state);

/* Let so much time pass: a second is enough for the next look. */
void homes_later(unsigned ms);

void homes_folder(unsigned rank, const char *path);
void homes_write(unsigned rank, const char *path, const char *text);
void homes_rename(unsigned rank, const char *from, const char *to);
void homes_remove(unsigned rank, const char *path, int flags);

/* The same as storing.h has them, of paths from the top. */
void homes_check(const char *path, const char *text);
void homes_check_error(const char *path, int error);
/* What is there is of @owner. */
struct stat homes_find(const char *path, unsigned owner);
int homes_find_error(const char *path);

/* A checkpoint in @folder reads @text of @name, at @rank, or cannot. */
void homes_check_in(struct store_folder *folder, const char *name,
		    unsigned rank, const char *text);
void homes_check_in_error(struct store_folder *folder, const char *name,
			  int error);

#endif
