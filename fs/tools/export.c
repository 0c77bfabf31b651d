/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tools/tool.h"

static enum tool_status run(int argc, char **argv)
{
	struct checkpoint *c;
	int error = argc > 1 ? tool_open(&tool_export, argv[1], &c) : -1;

	if (!error)
		checkpoint_close(c);
	return tool_open_status(error);
}

const struct tool tool_export = { .name = "export", .summary = "write a checkpoint as safetensors or .npy files", .help = "usage: ckptfs export\n", .run = run };
