/* SPDX-License-Identifier: Apache-2.0 */
/* Archives: what is found in one lies inside of it. */
#include "tests/fuzz/guarded_input.h"

#include "shard/base/limits.h"
#include "shard/dcp/zip.h"

static void check_fault(const struct fault *fault, int error, size_t size)
{
	CHECK(error == -EIO || error == -E2BIG || error == -EOPNOTSUPP ||
	      error == GUARDED_ERROR);
	CHECK(fault->error == error && fault->reason);
	/* Offsets of records are those that the archive claims. */
	CHECK(fault->offset <= size || error == -EIO || error == -EOPNOTSUPP ||
	      error == -E2BIG);
}

/* Look for PREFIX/@name, as item.c does. */
static int look(const struct zip *zip, const char *name)
{
	struct fault fault = { .error = 0 };
	struct zip_record record;
	uint64_t size = zip->input->size;
	int error = zip_find(zip, name, strlen(name), &record, &fault);

	if (error == -ENOENT) {
		CHECK(fault.error == 0);
		return 0;
	}
	if (!error) {
		CHECK(record.name_size == zip->prefix_size + strlen(name));
		error = zip_locate(zip, &record, &fault);
	}
	if (error) {
		check_fault(&fault, error, size);
		return error;
	}
	CHECK(record.method == 0 && record.header < record.offset);
	CHECK(record.offset <= zip->directory_offset);
	CHECK(record.size <= zip->directory_offset - record.offset);
	CHECK(memcmp((const char *)zip->input->data + record.header, "PK\3\4",
		     4) == 0);
	return 0;
}

static int run(const uint8_t *data, size_t size, unsigned reads)
{
	static const char *const names[] = {
		"data.pkl", "data/0", "byteorder", "version", "",
	};
	struct guarded_input guarded = guarded_input(data, size, &reads);
	struct fault fault = { .error = 0 };
	struct zip zip;
	unsigned i;
	int error = zip_open(&zip, &guarded.input,
			     LIMIT_OBJECT_DIRECTORY_SIZE, &fault);

	if (error) {
		check_fault(&fault, error, size);
		return error;
	}
	CHECK(zip.directory_offset + zip.directory_size <= size);
	CHECK(zip.record_count > 0 && 
	      zip.record_count <= LIMIT_OBJECT_DIRECTORY_SIZE / 46);
	CHECK(zip.prefix_size > 0 && zip.prefix[zip.prefix_size - 1] == '/');
	for (i = 0; i < sizeof(names) / sizeof(names[0]) &&
		    error != GUARDED_ERROR; i++)
		error = look(&zip, names[i]);
	zip_close(&zip);
	return error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned reads = 0;

	/* Fail the first read, the second, ... until none fails. */
	while (run(data, size, reads) == GUARDED_ERROR)
		reads++;
	CHECK(reads < 100);
	return 0;
}
