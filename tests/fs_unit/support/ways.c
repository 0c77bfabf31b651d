/* SPDX-License-Identifier: Apache-2.0 */
#include "support/ways.h"

#include "support/cat.h"
#include "support/sample.h"

#include <string.h>
#include <unistd.h>

const bool ways_elsewhere = false, ways_here = true;

bool ways_is_direct(void **state)
{
	return *(const bool *)*state;
}

void ways_start(void **state, unsigned count)
{
	const struct mounts_options options = {
		.count = count, .direct = ways_is_direct(state),
	};

	mounts_start(&options);
}

int ways_stop(void **state)
{
	(void)state;
	mounts_stop();
	return 0;
}

void ways_put(unsigned rank, const char *path, const char *name,
	      const char *text)
{
	struct test_folder folder;

	if (!*path) {
		folder_write(&mounts_stores[rank], name, text, strlen(text));
		return;
	}
	folder = mounts_folder(rank, path);
	folder_write(&folder, name, text, strlen(text));
	close(folder.fd);
}

void ways_put_sample(unsigned rank, bool local, unsigned char first)
{
	struct test_folder folder = mounts_folder(rank, "step");

	sample_write(&folder, local, first);
	close(folder.fd);
}

void ways_check_sample(unsigned count, unsigned char first)
{
	unsigned rank;

	for (rank = 0; rank < count; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		cat_check_sample(kernel, WAYS_VIEWS "tensors/w", first, 0,
				 SAMPLE_SIZE);
		cat_check_sample(kernel, WAYS_VIEWS "tensors/w[31:33]", first,
				 31 * WAYS_ROW, 2 * WAYS_ROW);
		cat_check_sample(kernel, WAYS_VIEWS "tensors/w[40]", first,
				 40 * WAYS_ROW, WAYS_ROW);
	}
}
