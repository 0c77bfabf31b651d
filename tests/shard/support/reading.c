/* SPDX-License-Identifier: Apache-2.0 */
#include "support/reading.h"

#include "support/test.h"

int reading(const struct transfer *transfer, struct reply *reply)
{
	const struct virtual_file_origin origin = {
		.catalog = transfer->catalog,
		.entry = (uint64_t)(transfer->entry -
				    catalog_entry(transfer->catalog, 0)),
		.selection = *transfer->selection,
	};
	struct virtual_file *file;
	int error = virtual_file_raw(&origin, &file);

	if (error)
		return error;
	error = reading_file(file, transfer->source, transfer->offset,
			     transfer->size, reply);
	virtual_file_put(file);
	return error;
}

int reading_file(const struct virtual_file *file, struct source *source,
		 uint64_t offset, uint64_t size, struct reply *reply)
{
	int error = reply_begin(reply, NULL, size);

	return error ? error : virtual_file_read(file, source, offset, reply);
}
