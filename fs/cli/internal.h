/* SPDX-License-Identifier: Apache-2.0 */
/* What tool.c, open.c and work.c have with each other. */
#ifndef FS_CLI_INTERNAL_H
#define FS_CLI_INTERNAL_H

#include <stdint.h>

/* Bytes that decoded items may take; before anything is opened. */
void open_set_cache_size(uint64_t size);
/* Nothing that was opened is in use any more. */
void open_finish(void);

/* End the process by the signal that came. */
void work_end_by_signal(void);

#endif
