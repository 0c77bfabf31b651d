/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths of tensors in their state dict, for dcp_read.c: planner_data, a dict of
 * name -> tuple of keys (strings) and positions in lists (numbers). A name is
 * the join of its path by dots, but parts may hold dots themselves.
 */
#ifndef SHARD_DCP_DCP_PATH_H
#define SHARD_DCP_DCP_PATH_H

#include "shard/dcp/dcp_index.h"

/* Note for each name the path that the lowest rank gives it. Whatever is no
 * such dict holds no paths. */
void dcp_path_collect(struct dcp_index *index);

/*
 * Parts of the path of @name, which is the first of its name, and where in it
 * each part but the last ends. 0: there is no path, or none that makes up the
 * name. Beyond LIMIT_PATH_DEPTH parts the rest counts as the last. Work is
 * bounded by the size of the name.
 */
unsigned dcp_path(const struct dcp_index *index, const struct dcp_name *name,
		  uint32_t ret_ends[LIMIT_PATH_DEPTH]);

#endif
