/* SPDX-License-Identifier: Apache-2.0 */
/* From the markers of a checkpoint to its catalog. */
#ifndef SHARD_CHECKPOINT_CATALOG_LOAD_H
#define SHARD_CHECKPOINT_CATALOG_LOAD_H

#include "shard/checkpoint/checkpoint_report.h"

/*
 * Read @files of @folder and make their catalog; pins those that are read.
 * @named: they were named to us, so that one which is not there is missing. 0;
 * -ESTALE when one changed while it was read, or is gone; or -errno with the
 * fault and the file in @report.
 */
int catalog_load(struct store_folder *folder, struct metadata_files *files,
		 bool named, struct catalog **ret_catalog,
		 struct checkpoint_report *report);

#endif
