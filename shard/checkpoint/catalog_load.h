/* SPDX-License-Identifier: Apache-2.0 */
/* From the markers of a checkpoint to its catalog: a part of checkpoint.c. */
#ifndef SHARD_CHECKPOINT_CATALOG_LOAD_H
#define SHARD_CHECKPOINT_CATALOG_LOAD_H

#include "shard/checkpoint/checkpoint.h"

/*
 * Read the markers of @checkpoint and make its catalog; fills the markers'
 * pins and the status, too. 0; -ESTALE when one changed while it was read; or
 * -errno with the fault and the file in @report.
 */
int catalog_load_make_catalog(struct checkpoint *checkpoint,
			      struct checkpoint_report *report);

/* Fill @report: @file is refused for @reason, or, if that is NULL, for what
 * its fault says. Returns @error. */
int catalog_load_refuse(struct checkpoint_report *report, const char *file,
			int error, const char *reason);

#endif
