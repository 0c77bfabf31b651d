/* SPDX-License-Identifier: Apache-2.0 */
#include "support/folder.h"

#include "support/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void folder_make(struct test_folder *folder)
{
	const char *parent = getenv("TMPDIR");

	if (!parent || snprintf(NULL, 0, "%s", parent) > 40)
		parent = "/tmp";
	snprintf(folder->path, sizeof(folder->path), "%s/ckptfs-test.XXXXXX",
		 parent);
	assert_non_null(mkdtemp(folder->path));
	folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(folder->fd >= 0);
}

static int remove_entry(const char *path, const struct stat *status, int type,
			struct FTW *where)
{
	(void)status;
	(void)type;
	(void)where;
	return remove(path);
}

void folder_remove(struct test_folder *folder)
{
	close(folder->fd);
	assert_int_equal(nftw(folder->path, remove_entry, 16,
			      FTW_DEPTH | FTW_PHYS), 0);
}

void folder_write(const struct test_folder *folder, const char *name,
		  const void *data, size_t size)
{
	int fd = openat(folder->fd, name,
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	const char *p = data;

	assert_true(fd >= 0);
	while (size > 0) {
		ssize_t written = write(fd, p, size);

		assert_true(written > 0);
		p += written;
		size -= (size_t)written;
	}
	assert_int_equal(close(fd), 0);
}

void folder_poke(const struct test_folder *folder, const char *name,
		 uint64_t offset, unsigned char byte)
{
	struct timespec times[2] = { { 0, UTIME_OMIT }, { 1, 2 } };
	int fd = openat(folder->fd, name, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
	/* The clock of the kernel's times is coarse: make sure that two writes
	 * within one tick are told apart. */
	assert_int_equal(futimens(fd, times), 0);
	assert_int_equal(close(fd), 0);
}

unsigned folder_count_descriptors(void)
{
	DIR *stream = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(stream);
	while (readdir(stream))
		count++;
	closedir(stream);
	return count;
}
