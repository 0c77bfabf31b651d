/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints, each in a store of its own. */
#ifndef SUPPORT_OPENING_H
#define SUPPORT_OPENING_H

#include "shard/checkpoint/checkpoint.h"

/* That of the folder @fd, as checkpoint_open_folder. */
int opening_checkpoint(int fd, const struct checkpoint_options *options,
		       struct checkpoint **ret_checkpoint,
		       struct checkpoint_report *report);
/* Close it, and its store. NULL is fine. */
void opening_close(struct checkpoint *checkpoint);

/* Is it current, by what its store has now? */
bool opening_is_current(const struct checkpoint *checkpoint, uint64_t *cursor);

/* Of the markers in the folder @fd; 0: there are none. */
uint64_t opening_signature(int fd);

#endif
