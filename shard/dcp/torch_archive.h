/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stored item: where the elements of its tensor lie, or what its object is.
 * Source: torch/_utils.py (_rebuild_*), torch/serialization.py.
 */
#ifndef SHARD_DCP_TORCH_ARCHIVE_H
#define SHARD_DCP_TORCH_ARCHIVE_H

#include "shard/base/box.h"
#include "shard/base/dtype.h"
#include "shard/base/fault.h"
#include "shard/base/io.h"
#include "shard/base/layout.h"
#include "shard/dcp/pickle.h"

/*
 * Read the item in @input, which must hold the elements of @shard as @dtype.
 * 0 with @ret_layout (its offset counted in the file of @input), or with
 * @fault filled: -EIO for damage or contradictions to the metadata, -EBADMSG
 * for a bad pickle, -EOPNOTSUPP for a form that ckptfs does not read, -E2BIG,
 * -ENOMEM, or what reading gave.
 */
int torch_archive_layout(const struct input *input, enum dtype dtype,
			 const struct box *shard, struct layout *ret_layout,
			 struct fault *fault);

/*
 * The pickle of the item in @input, of at most @limit bytes. On 0 the caller
 * owns @ret_data, free(), which must outlive @ret_pickle, pickle_finish().
 */
int torch_archive_pickle(const struct input *input, uint64_t limit,
			 void **ret_data, struct pickle *ret_pickle,
			 struct fault *fault);

#endif
