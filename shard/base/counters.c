/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/counters.h"

#include "shard/base/clock.h"

#include <stdatomic.h>

static void add(_Atomic uint64_t *counter, uint64_t number)
{
	atomic_fetch_add_explicit(counter, number, memory_order_relaxed);
}

void counters_add(struct counters_reads *reads, uint64_t bytes, int error,
		  uint64_t began_ns)
{
	uint64_t us = (clock_ns() - began_ns) / 1000;
	unsigned bucket = 0;

	while (bucket < COUNTERS_BUCKETS - 1 && us > UINT64_C(1) << bucket)
		bucket++;
	add(&reads->requests, 1);
	add(&reads->bytes, bytes);
	add(&reads->errors, error != 0);
	add(&reads->sum_us, us);
	add(&reads->buckets[bucket], 1);
}
