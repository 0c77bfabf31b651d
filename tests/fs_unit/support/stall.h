/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the daemons of mounts.h wait where they may: as if the store did not
 * answer. What is stalled goes on when mounts_stop is called, at the latest.
 */
#ifndef SUPPORT_STALL_H
#define SUPPORT_STALL_H

/*
 * Whatever goes to the pool of @rank, but for reads from other ranks, waits
 * there until stall_pool_end; what was running has ended. One pool at a time.
 */
void stall_pool(unsigned rank);
void stall_pool_end(void);
/* All that had gone to the pool of @rank has ended, and has let go of what it
 * had. */
void stall_settle(unsigned rank);

/*
 * Who asks for the time waits until stall_clock_end: somebody who looks at a
 * folder of a store again, and has done nothing there yet.
 */
void stall_clock(void);
void stall_clock_end(void);
/* Until somebody waits. */
void stall_clock_await(void);

/* ---- for mounts.c -------------------------------------------------------- */

void stall_pass_clock(void);
void stall_end_all(void);

#endif
