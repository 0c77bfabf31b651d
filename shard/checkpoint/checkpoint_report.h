/* SPDX-License-Identifier: Apache-2.0 */
/* What was found while a checkpoint was opened: printed by who has the log. */
#ifndef SHARD_CHECKPOINT_CHECKPOINT_REPORT_H
#define SHARD_CHECKPOINT_CHECKPOINT_REPORT_H

#include "shard/base/fault.h"
#include "shard/base/notes.h"
#include "shard/checkpoint/metadata_files.h"

struct checkpoint_report {
	struct notes notes;
	struct fault fault;
	char file[METADATA_NAME_MAX]; /* the marker that the fault is in */
};

/* @file is refused for @reason, or, if that is NULL, for what the fault says.
 * Returns @error. */
int checkpoint_report_refuse(struct checkpoint_report *report,
			     const char *file, int error, const char *reason);

#endif
