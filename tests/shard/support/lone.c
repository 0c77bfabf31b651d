/* SPDX-License-Identifier: Apache-2.0 */
#include "support/lone.h"

#include "support/test.h"

#include "shard/store/folder_store.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct test_folder lone_top, lone_in;
struct store *lone;

static unsigned descriptors;

int lone_setup(void **state)
{
	(void)state;
	descriptors = folder_count_descriptors();
	folder_make(&lone_top);
	folder_write(&lone_top, "outside", "secret", 6);
	assert_int_equal(mkdirat(lone_top.fd, "store", 0755), 0);
	lone_in.fd = openat(lone_top.fd, "store",
			    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(lone_in.fd >= 0);
	lone = folder_store_create(lone_in.fd);
	return lone ? 0 : -1;
}

int lone_teardown(void **state)
{
	(void)state;
	lone->destroy(lone);
	folder_remove(&lone_top);
	assert_int_equal(folder_count_descriptors(), descriptors);
	return 0;
}

struct store_path lone_at(const char *path)
{
	return store_path_in(NULL, path);
}

void lone_folder(const char *path)
{
	assert_int_equal(mkdirat(lone_in.fd, path, 0755), 0);
}

void lone_write(const char *path, const char *text)
{
	folder_write(&lone_in, path, text, strlen(text));
}

void lone_link(const char *target, const char *path)
{
	assert_int_equal(symlinkat(target, lone_in.fd, path), 0);
}

int lone_find(struct store_path path, struct stat *ret_status)
{
	struct store_found found = { .owner = 9 };
	int error = lone->find(lone, path, &found);

	if (!error) {
		assert_int_equal(found.owner, 0);
		*ret_status = found.status;
	}
	return error;
}

void lone_check_type(struct store_path path, mode_t type)
{
	struct stat status = { .st_mode = 0 };

	assert_int_equal(lone_find(path, &status), 0);
	assert_int_equal(status.st_mode & S_IFMT, type);
}

void lone_check_no(struct store_path path, int error)
{
	struct stat status;

	assert_int_equal(lone_find(path, &status), error);
}

void lone_check_in(struct store_folder *folder, const char *name,
		   const char *text)
{
	struct stored_file *file;
	struct replica owner;
	char got[STORING_TEXT];

	assert_int_equal(lone->open_in(folder, name, &file), 0);
	assert_int_equal(storing_read(file, true, got), 0);
	assert_string_equal(got, text);
	assert_int_equal(lone->resolve(folder, name, &owner), 0);
	assert_int_equal(owner.rank, 0);
	assert_true(pin_equal(&owner.pin, &file->pin));
	file->close(file);
}

void lone_check_in_error(struct store_folder *folder, const char *name,
			 int error)
{
	struct stored_file *file;
	struct replica owner;

	assert_int_equal(lone->open_in(folder, name, &file), error);
	assert_int_equal(lone->resolve(folder, name, &owner), error);
}
