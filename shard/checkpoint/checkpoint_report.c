/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint/checkpoint_report.h"

#include <stdio.h>

int checkpoint_report_refuse(struct checkpoint_report *report,
			     const char *file, int error, const char *reason)
{
	if (reason)
		fault_set(&report->fault, error, 0, reason);
	snprintf(report->file, sizeof(report->file), "%s", file);
	return error;
}
