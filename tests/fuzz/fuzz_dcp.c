/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From metadata to a catalog. An input is one `.metadata`, or, with
 * separators in it, the `__N.metadata` of several ranks.
 */
#include "tests/fuzz/catalog_check.h"
#include "tests/fuzz/fuzz.h"

#include "shard/dcp/dcp.h"

#include <errno.h>
#include <string.h>

static const char separator[] = "<NEXT>";
enum { SEPARATOR_SIZE = sizeof(separator) - 1, FILES_MAX = 8 };

/* The files get memory of their own, exactly as large as they are. */
static unsigned split(const uint8_t *data, size_t size, struct dcp_file *files)
{
	unsigned count = 0;

	for (;;) {
		const uint8_t *found = memmem(data, size, separator,
					      SEPARATOR_SIZE);
		size_t part = found && count + 1 < FILES_MAX ?
			      (size_t)(found - data) : size;
		void *copy = malloc(part ? part : 1);

		CHECK(copy);
		memcpy(copy, data, part);
		files[count++] = (struct dcp_file){ .data = copy, .size = part };
		if (part == size)
			return count;
		data += part + SEPARATOR_SIZE;
		size -= part + SEPARATOR_SIZE;
	}
}

static void check_fault(const struct fault *fault, int error,
			const struct dcp_file *file)
{
	CHECK(error == -EBADMSG || error == -E2BIG);
	CHECK(fault->error == error && fault->reason);
	CHECK(fault->offset <= file->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct notes *notes = calloc(1, sizeof(*notes));
	struct catalog_builder *builder = catalog_builder_create(notes);
	struct fault fault = { .error = 0 };
	struct dcp_file files[FILES_MAX];
	unsigned count = split(data, size, files), bad = 0, i;
	struct catalog *catalog;
	int error;

	CHECK(notes && builder);
	error = dcp_read(builder, files, count, &fault, &bad);
	if (error) {
		CHECK(bad < count);
		check_fault(&fault, error, &files[bad]);
	}
	/* A catalog borrows nothing. */
	for (i = 0; i < count; i++)
		free((void *)files[i].data);
	if (!error) {
		CHECK(catalog_builder_finish(builder, &catalog) == 0);
		check_catalog(catalog);
		catalog_put(catalog);
	}
	catalog_builder_destroy(builder);
	free(notes);
	return 0;
}
