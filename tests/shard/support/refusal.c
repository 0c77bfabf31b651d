/* SPDX-License-Identifier: Apache-2.0 */
#include "support/refusal.h"

#include "support/test.h"

#include "shard/catalog/catalog_check.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void refusal_check(const char *what, const struct fault *fault, int error,
		   uint64_t offset, const char *reason)
{
	if (fault->error == error && fault->offset == offset &&
	    fault->reason && strstr(fault->reason, reason))
		return;
	fail_msg("%s: error %d at %" PRIu64 ": %s; expected %d at %" PRIu64
		 ": %s", what, fault->error, fault->offset,
		 fault->reason ? fault->reason : "(no reason)", error, offset,
		 reason);
}

void refusal_catalog(const struct catalog *catalog, uint64_t whole,
		     const char *reason)
{
	struct fault fault = { .error = 0 };

	assert_int_equal(catalog_check(catalog, whole, &fault), -EBADMSG);
	assert_true(fault.offset < whole);
	refusal_check(reason, &fault, -EBADMSG, fault.offset, reason);
}
