/* SPDX-License-Identifier: Apache-2.0 */
#include "support/opening.h"

#include "shard/store/folder_store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* -errno: there is no memory. */
static int make_store(int fd, struct store **ret_store)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (copy < 0)
		return -errno;
	*ret_store = folder_store_create(copy);
	if (*ret_store)
		return 0;
	close(copy);
	return -ENOMEM;
}

int opening_checkpoint(int fd, const struct checkpoint_options *options,
		       struct checkpoint **ret_checkpoint,
		       struct checkpoint_report *report)
{
	struct store_folder *folder;
	struct store *store = NULL;
	int error = make_store(fd, &store);

	memset(report, 0, sizeof(*report));
	if (error)
		return fault_set(&report->fault, error, 0, "no store");
	error = store->open_folder(store, store_path_in(NULL, ""), &folder);
	if (error)
		fault_set(&report->fault, error, 0, "no folder");
	else
		error = checkpoint_open_folder(folder, options, ret_checkpoint,
					       report);
	if (error)
		store->destroy(store);
	return error;
}

void opening_close(struct checkpoint *checkpoint)
{
	struct store *store = NULL;

	if (!checkpoint)
		return;
	store = checkpoint->folder->store;
	checkpoint_close(checkpoint);
	store->destroy(store);
}

bool opening_is_current(const struct checkpoint *checkpoint, uint64_t *cursor)
{
	struct store *store = checkpoint->folder->store;
	struct metadata_files markers;
	struct store_folder *folder;
	bool current = false;

	if (store->open_folder(store, store_path_in(NULL, ""), &folder))
		return false;
	if (metadata_files_read(folder, checkpoint->file, &markers) == 0) {
		current = checkpoint_is_current(checkpoint, folder, &markers,
						cursor);
		metadata_files_finish(&markers);
	}
	store_folder_put(folder);
	return current;
}

uint64_t opening_signature(int fd)
{
	struct metadata_files markers;
	struct store_folder *folder;
	struct store *store = NULL;
	uint64_t signature = 0;

	if (make_store(fd, &store))
		return 0;
	if (store->open_folder(store, store_path_in(NULL, ""), &folder) == 0) {
		if (metadata_files_read(folder, NULL, &markers) == 0) {
			metadata_files_pin(&markers, folder);
			signature = metadata_files_signature(&markers);
			metadata_files_finish(&markers);
		}
		store_folder_put(folder);
	}
	store->destroy(store);
	return signature;
}
