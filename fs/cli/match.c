/* SPDX-License-Identifier: Apache-2.0 */
/* Which names a pattern of the command line means. */
#include "fs/cli/tool.h"

#include <fnmatch.h>
#include <string.h>

bool tool_matches(const struct catalog *catalog,
		  const struct catalog_entry *entry, const char *glob)
{
	char name[LIMIT_NAME_SIZE + 1];

	if (!glob)
		return true;
	memcpy(name, catalog_text(catalog, entry->name), entry->name_size);
	name[entry->name_size] = '\0';
	return fnmatch(glob, name, 0) == 0;
}
