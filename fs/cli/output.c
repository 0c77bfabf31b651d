/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Names that may be taken already, before we give up. */
enum { NAME_ATTEMPTS = 100 };

struct output {
	int parent;		/* owned: the folder that it will be in */
	int files;		/* owned: the folder of its files */
	bool is_folder;
	bool exists;		/* under its temporary name */
	char name[NAME_MAX + 1], temporary[NAME_MAX + 1];
};

/* ---- the place ----------------------------------------------------------- */

/* The folder and the name that @path means, through links that are there. */
static int find_parent(struct output *output, const char *path)
{
	char *real = realpath(path, NULL), *copy = NULL;
	const char *name;
	int error = 0;

	if (!real && (errno != ENOENT || !*path))
		return -errno;
	if (!real)
		real = strdup(path);
	copy = real ? strdup(real) : NULL;
	if (!copy) {
		free(real);
		return -ENOMEM;
	}
	name = basename(real);
	if (strlen(name) >= sizeof(output->name))
		error = -ENAMETOOLONG;
	else
		strcpy(output->name, name);
	if (!error) {
		output->parent = open(dirname(copy), O_RDONLY | O_DIRECTORY |
				      O_CLOEXEC);
		error = output->parent < 0 ? -errno : 0;
	}
	free(copy);
	free(real);
	return error;
}

static bool is_pinned(const struct pin *pin, const struct pin *other)
{
	return pin->inode && pin_same_file(pin, other);
}

static const char *check_file(const struct stat *status,
			      const struct checkpoint *checkpoint)
{
	static const char reason[] = "is a file of the checkpoint";
	struct pin pin = pin_from_stat(status);
	uint64_t i;

	if (!S_ISREG(status->st_mode))
		return "is there, and not a file";
	for (i = 0; i < checkpoint->catalog->file_count; i++)
		if (is_pinned(checkpoint_pin(checkpoint, i), &pin))
			return reason;
	for (i = 0; i < checkpoint->markers.count; i++)
		if (is_pinned(&checkpoint->markers.files[i].owner.pin, &pin))
			return reason;
	return NULL;
}

static bool is_empty(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	bool empty = stream;

	if (!stream && fd >= 0)
		close(fd);
	while (empty) {
		entry = readdir(stream);
		if (!entry)
			break;
		empty = strcmp(entry->d_name, ".") == 0 ||
			strcmp(entry->d_name, "..") == 0;
	}
	if (stream)
		closedir(stream);
	return empty;
}

static const char *check_folder(const struct output *output,
				const struct stat *status)
{
	struct stat parent;

	if (!S_ISDIR(status->st_mode))
		return "is there, and not a folder";
	if (!is_empty(output->parent, output->name))
		return "is a folder that is not empty";
	/* What is written beside it would not be on its file system. */
	if (fstat(output->parent, &parent) < 0 ||
	    parent.st_dev != status->st_dev)
		return "is where a file system is mounted: name a folder in it";
	return NULL;
}

static int check_place(const struct output *output,
		       const struct checkpoint *checkpoint,
		       const char **ret_reason)
{
	struct stat status;

	if (fstatat(output->parent, output->name, &status,
		    AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISLNK(status.st_mode))
		*ret_reason = "is a link that leads nowhere";
	else if (output->is_folder)
		*ret_reason = check_folder(output, &status);
	else
		*ret_reason = check_file(&status, checkpoint);
	return *ret_reason ? -EEXIST : 0;
}

/* ---- the temporary name -------------------------------------------------- */

static int make_name(struct output *output)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz012345";
	unsigned char random[6];
	char suffix[sizeof(random) + 1];
	size_t i;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	for (i = 0; i < sizeof(random); i++)
		suffix[i] = letters[random[i] % 32];
	suffix[i] = '\0';
	snprintf(output->temporary, sizeof(output->temporary),
		 ".%.200s.ckptfs-%s", output->name, suffix);
	return 0;
}

static int make_temporary(struct output *output)
{
	int fd;

	if (output->is_folder) {
		if (mkdirat(output->parent, output->temporary, 0777) < 0)
			return -errno;
		output->exists = true;
		output->files = openat(output->parent, output->temporary,
				       O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return output->files < 0 ? -errno : 0;
	}
	fd = openat(output->parent, output->temporary,
		    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return -errno;
	close(fd);
	output->exists = true;
	output->files = fcntl(output->parent, F_DUPFD_CLOEXEC, 0);
	return output->files < 0 ? -errno : 0;
}

int output_create(const char *path, bool is_folder,
		  const struct checkpoint *checkpoint,
		  struct output **ret_output, const char **ret_reason)
{
	struct output *output = calloc(1, sizeof(*output));
	int error, attempt = 0;

	if (!output)
		return -ENOMEM;
	output->is_folder = is_folder;
	output->parent = output->files = -1;
	error = find_parent(output, path);
	if (!error)
		error = check_place(output, checkpoint, ret_reason);
	if (!error) {
		do {
			error = make_name(output);
			if (!error)
				error = make_temporary(output);
		} while (error == -EEXIST && ++attempt < NAME_ATTEMPTS);
	}
	if (error)
		output_destroy(output);
	else
		*ret_output = output;
	return error;
}

static void remove_files(int folder)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (!stream) {
		if (fd >= 0)
			close(fd);
		return;
	}
	for (;;) {
		entry = readdir(stream);
		if (!entry)
			break;
		if (strcmp(entry->d_name, ".") != 0 &&
		    strcmp(entry->d_name, "..") != 0)
			unlinkat(folder, entry->d_name, 0);
	}
	closedir(stream);
}

void output_destroy(struct output *output)
{
	if (!output)
		return;
	if (output->exists && output->is_folder && output->files >= 0)
		remove_files(output->files);
	if (output->exists)
		unlinkat(output->parent, output->temporary,
			 output->is_folder ? AT_REMOVEDIR : 0);
	if (output->files >= 0)
		close(output->files);
	if (output->parent >= 0)
		close(output->parent);
	free(output);
}

/* ---- its files ----------------------------------------------------------- */

static int open_file(struct output *output, const char *name, int flags)
{
	int fd = openat(output->files, output->is_folder ? name :
			output->temporary, O_WRONLY | O_CLOEXEC | flags, 0666);

	return fd < 0 ? -errno : fd;
}

/* Not posix_fallocate, which would write zeros where there is no such thing. */
static int allocate(int fd, uint64_t size)
{
	if (size == 0 || fallocate(fd, 0, 0, (off_t)size) == 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

int output_make(struct output *output, const char *name, uint64_t size)
{
	int fd = open_file(output, name, output->is_folder ?
			   O_CREAT | O_EXCL : 0);
	int error;

	if (fd < 0)
		return fd;
	error = allocate(fd, size);
	close(fd);
	return error;
}

int output_open(struct output *output, const char *name, int *ret_fd)
{
	int fd = open_file(output, name, 0);

	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}

int output_sync(struct output *output)
{
	return syncfs(output->files) < 0 ? -errno : 0;
}

/* Not every file system can do that with a folder. */
static int sync_folder(int fd)
{
	return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

int output_commit(struct output *output)
{
	int error = output->is_folder ? sync_folder(output->files) : 0;

	if (error)
		return error;
	if (renameat(output->parent, output->temporary, output->parent,
		     output->name) < 0)
		return -errno;
	output->exists = false;
	return sync_folder(output->parent);
}
