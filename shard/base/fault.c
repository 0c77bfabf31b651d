/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/fault.h"

#include <stddef.h>

int fault_set_detail(struct fault *fault, int error, uint64_t offset,
		     const char *reason, struct fault_detail detail)
{
	size_t size = 0;

	if (!fault)
		return error;
	fault->error = error;
	fault->reason = reason;
	fault->offset = offset;
	while (size < detail.size && size + 1 < sizeof(fault->detail)) {
		char c = detail.text[size];

		fault->detail[size++] = c >= ' ' && c < 0x7f ? c : '?';
	}
	fault->detail[size] = '\0';
	return error;
}

int fault_set(struct fault *fault, int error, uint64_t offset,
	      const char *reason)
{
	return fault_set_detail(fault, error, offset, reason,
				(struct fault_detail){ NULL, 0 });
}
