/* SPDX-License-Identifier: Apache-2.0 */
/* What an export says: to people on standard error, to scripts on standard
 * output. */
#ifndef FS_CLI_EXPORT_SAY_H
#define FS_CLI_EXPORT_SAY_H

#include "fs/cli/export_plan.h"
#include "fs/cli/writer.h"

/* Name the tensors of @plan that cannot be read as a whole. False: there are
 * none. @ret_error is 0 or -ENOMEM. */
bool export_explain_obstacles(const struct export_plan *plan, int *ret_error);

/* Name what was left out. 0 or -ENOMEM. */
int export_explain_left_out(const struct export_plan *plan);

/* Nothing matches: say what there is. TOOL_FAILED. */
enum tool_status export_explain_nothing(const struct export_plan *plan);

/* Say why the @size bytes were not written, and how the command ends. */
enum tool_status export_explain_failure(const struct export_plan *plan,
					const struct writer_failure *failure,
					uint64_t size);

/* A line for each tensor, and the summary. 0 or -ENOMEM. */
int export_print_json(const struct export_plan *plan);

#endif
