/* SPDX-License-Identifier: Apache-2.0 */
#include "support/storing.h"

#include "support/test.h"

#include <stdlib.h>
#include <string.h>

int storing_read(struct stored_file *file, bool exact,
		 char ret_text[STORING_TEXT])
{
	struct reply *reply = reply_create();
	int error;

	assert_non_null(reply);
	assert_int_equal(reply_begin(reply, ret_text, STORING_TEXT - 1), 0);
	error = file->read(file, 0, exact, reply);
	ret_text[error ? 0 : reply->size] = '\0';
	reply_destroy(reply);
	return error;
}

int storing_read_path(struct store *store, struct store_path path,
		      char ret_text[STORING_TEXT])
{
	struct stored_file *file;
	int error = store->open(store, path, &file);

	if (error)
		return error;
	error = storing_read(file, true, ret_text);
	file->close(file);
	return error;
}

void storing_check(struct store *store, struct store_path path,
		   const char *text)
{
	char got[STORING_TEXT];

	assert_int_equal(storing_read_path(store, path, got), 0);
	assert_string_equal(got, text);
}

void storing_check_error(struct store *store, struct store_path path,
			 int error)
{
	char got[STORING_TEXT];

	assert_int_equal(storing_read_path(store, path, got), error);
}

struct store_folder *storing_folder(struct store *store, const char *path)
{
	struct store_folder *folder;

	assert_int_equal(store->open_folder(store, store_path_in(NULL, path),
					    &folder), 0);
	return folder;
}

void storing_check_names(struct store_folder *folder, const char *names)
{
	struct array got = { .data = NULL };
	struct store_list *list;
	size_t i;

	assert_int_equal(folder->store->list(folder, true, &list), 0);
	for (i = 0; i < list->count; i++) {
		const char *name = list->entries[i].name;

		assert_ptr_equal(store_list_find(list, name),
				 &list->entries[i]);
		assert_int_equal(array_append(&got, name, strlen(name)), 0);
		assert_int_equal(array_append(&got, "\n", 1), 0);
	}
	assert_int_equal(array_append(&got, "", 1), 0);
	assert_string_equal((char *)got.data, names);
	array_finish(&got);
	store_list_put(list);
}
