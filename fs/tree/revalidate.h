/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a folder still has the checkpoint that it had. All may block. */
#ifndef FS_TREE_REVALIDATE_H
#define FS_TREE_REVALIDATE_H

#include "fs/tree/folder.h"

/* Look at the store again for the checkpoint in @folder, at most once a second
 * unless it is known to be stale. */
void revalidate(struct namespace *ns, struct folder *folder);

/* The same at once, since somebody knows of something else. */
void revalidate_now(struct namespace *ns, struct folder *folder);

/* The checkpoint that is made from the markers of @signature, looked for at once
 * if it is not known. 0 with one hold; -EBADMSG: it was refused; -ESTALE: there
 * is none. */
int revalidate_for(struct namespace *ns, struct folder *folder,
		   uint64_t signature, struct mounted **ret_mounted);

#endif
