/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint/mounted_hooks.h"

#include "shard/base/hash.h"

#include <string.h>

uint64_t catalog_folder_id(const char *path)
{
	return hash_64(path, strlen(path), 0);
}
