/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a checkpoint what was written? All of its stored items are read and their
 * checksums computed again; its files and boxes are held against each other.
 *
 * What has no checksum cannot be told from what was written: the elements in
 * safetensors files, and the metadata, of which only what is found again in
 * the items can be checked. The header of a safetensors file was checked when
 * the checkpoint was opened.
 */
#ifndef SHARD_VERIFY_VERIFY_H
#define SHARD_VERIFY_VERIFY_H

#include "shard/checkpoint/checkpoint.h"
#include "shard/verify/verify_item.h"

/* The shard of a fault that is about the whole entry. */
#define VERIFY_ALL_SHARDS UINT64_MAX

struct verify_fault {
	enum verify_kind kind;
	uint64_t entry;		/* index in the catalog */
	uint64_t shard;		/* of the entry; holes stand behind the
				 * shards; or VERIFY_ALL_SHARDS */
	const char *file;	/* path below the checkpoint; NULL: none */
	uint64_t offset;	/* bytes from the start of the file. Of an item
				 * that was decoded: of its start */
	const char *reason;	/* constant string */
	const char *detail;	/* more of it, printable; or "" */
};

/* What is odd, but not damage. */
struct verify_note {
	const char *file;	/* path below the checkpoint */
	uint64_t offset, size;	/* bytes of it */
	const char *reason;	/* constant string */
};

/* Who is told. All is borrowed for the call; no two calls of `fault` and
 * `note` are made at once. */
struct verify_sink {
	void (*fault)(void *context, const struct verify_fault *fault);
	void (*note)(void *context, const struct verify_note *note);
	/* @size more bytes were dealt with; by any thread. */
	void (*progress)(void *context, uint64_t size);
	void *context;
};

struct verify_summary {
	uint64_t tensor_count;
	uint64_t size;		/* of the tensors, bytes */
	uint64_t hashed;	/* tensors whose stored checksums were all
				 * computed again */
	uint64_t not_recorded;	/* tensors that have none */
	uint64_t fault_count;
};

struct verify;

/*
 * Tell @sink what can be said without reading, and divide the rest into units.
 * @quick: elements are not read. @checkpoint and @sink are borrowed. 0 or
 * -ENOMEM.
 */
int verify_create(const struct checkpoint *checkpoint, bool quick,
		  const struct verify_sink *sink, struct verify **ret_verify);
/* NULL is fine. */
void verify_destroy(struct verify *verify);

/* Units of work, and the bytes that they read. */
uint64_t verify_unit_count(const struct verify *verify);
uint64_t verify_size(const struct verify *verify);

/*
 * Do unit @index, each one once, in any order and by any threads; ascending
 * units lie in the order of files. 0, -ESTALE when a file is not what it was,
 * -ENOMEM, -EMFILE. Damage is no error.
 */
int verify_unit(struct verify *verify, struct verify_buffer *buffer,
		uint64_t index);

/* When all units were done. */
void verify_finish(const struct verify *verify,
		   struct verify_summary *ret_summary);

#endif
