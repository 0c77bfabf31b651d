/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of several files, read into one catalog. One case at a time. */
#ifndef SUPPORT_HF_CASE_H
#define SUPPORT_HF_CASE_H

#include "shard/safetensors/hf.h"

enum { HF_CASE_FILES = 8 };

struct hf_case {
	struct hf_file files[HF_CASE_FILES];
	unsigned file_count;
	struct notes notes;
	struct fault fault;
	unsigned bad;
	struct catalog *catalog;
};

extern struct hf_case hf_case;

void hf_case_clear(void);
int hf_case_teardown(void **state);

/* The file @path, with all the data that its header asks for; a header that
 * is refused makes a bad file. */
void hf_case_add(const char *path, const char *header);

/* Read all with the index @text, NULL: none. */
int hf_case_read(const char *text);
void hf_case_read_good(const char *index);
void hf_case_refused(int error, unsigned file, const char *reason);

const struct catalog_entry *hf_case_entry(const char *name);

/* @expected: shape, and its shards as "FILE@BEGIN:OFFSETS+SIZES", where BEGIN
 * counts from the data of the file. */
void hf_case_check(const char *name, const char *expected);

#define T(name, dtype, shape, offsets) \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape \
	",\"data_offsets\":" offsets "}"
/* The sharding of a file, and of one tensor in it. */
#define SHARDS(text) \
	"\"__metadata__\":{\"DCP_VERSION\":\"1.0\"," \
	"\"DCP_SHARDING_INFO\":\"{" text "}\"}"
#define AT(name, offsets) \
	"\\\"" name "\\\": {\\\"saved_offsets\\\": " offsets "}"
#define AT_MORE(name, offsets, more) \
	"\\\"" name "\\\": {\\\"saved_offsets\\\": " offsets ", " more "}"
#define GLOBAL(shape) "\\\"global_shape\\\": " shape
#define NAME(name) "\\\"logical_fqn\\\": \\\"" name "\\\""

#endif
