/* SPDX-License-Identifier: Apache-2.0 */
/* All that is open in a mount. */
#ifndef FS_TREE_OPEN_TABLE_H
#define FS_TREE_OPEN_TABLE_H

#include <pthread.h>
#include <sys/queue.h>

struct namespace;

LIST_HEAD(open_files, open_file);
LIST_HEAD(open_folders, open_folder);

struct open_table {
	struct namespace *ns;		/* borrowed: for each kind; const */
	pthread_mutex_t *lock;		/* of the inodes, which are open or not;
					 * borrowed; const */
	struct open_files files;	/* guarded by it, as is the next one */
	struct open_folders folders;
};

#endif
