/* SPDX-License-Identifier: Apache-2.0 */
#include "support/placing.h"

#include "support/test.h"

#include "shard/base/io.h"

#include <fcntl.h>

struct placement *placing_folder(int fd, const struct catalog *catalog)
{
	struct placement *placement = placement_create(1, catalog->file_count,
						       catalog->file_count);
	struct stat status;
	uint64_t i;

	assert_non_null(placement);
	placement->folders[0] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	assert_true(placement->folders[0] >= 0);
	for (i = 0; i < catalog->file_count; i++) {
		const char *path = catalog_text(catalog,
			catalog_file(catalog, i)->path);

		placement->files[i].first = i;
		if (io_stat(fd, path, &status) < 0)
			continue;
		placement->files[i].count = 1;
		placement->replicas[i].pin = pin_from_stat(&status);
	}
	return placement;
}
