/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon has done, for status.json and metrics. */
#ifndef SHARD_BASE_COUNTERS_H
#define SHARD_BASE_COUNTERS_H

#include <stdint.h>

/* Where a read found its bytes: on this host, or also at another rank. */
enum counters_source { COUNTERS_LOCAL, COUNTERS_PEER, COUNTERS_SERVED,
		       COUNTERS_SOURCES };

/* Reads that took up to 2^n microseconds; the last: longer ones. */
enum { COUNTERS_BUCKETS = 25 };

/* All atomic. */
struct counters {
	struct counters_reads {
		_Atomic uint64_t requests, bytes, errors, sum_us;
		_Atomic uint64_t buckets[COUNTERS_BUCKETS];
	} reads[COUNTERS_SOURCES];
};

/* One more, that began at @began_ns of clock_ns. */
void counters_add(struct counters_reads *reads, uint64_t bytes, int error,
		  uint64_t began_ns);

#endif
