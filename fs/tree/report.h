/* SPDX-License-Identifier: Apache-2.0 */
/* MNT/.ckptfs/status.json and MNT/.ckptfs/metrics. */
#ifndef FS_TREE_REPORT_H
#define FS_TREE_REPORT_H

#include "fs/tree/namespace.h"

struct report {
	struct namespace *ns;		/* borrowed, as are all */
	const char *version, *source, *path;
	/* Slots of peers in use, and waited for by nobody; NULL: there are no
	 * ranks. */
	void (*count)(void *context, uint64_t *ret_slots,
		      uint64_t *ret_quarantined);
	void *context;
};

/* For namespace.report: the context is a struct report. @out may be NULL, to
 * ask whether there is a file called @name. */
bool report_make(void *context, const char *name, struct array *out);

#endif
