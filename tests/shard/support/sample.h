/* SPDX-License-Identifier: Apache-2.0 */
/* A small checkpoint in a folder: the tensor "w" of 64 x 64 float32 in two
 * shards of rows, the scalar "s", and the object "o", which is {"lr": 0.5}. */
#ifndef SUPPORT_SAMPLE_H
#define SUPPORT_SAMPLE_H

#include "support/folder.h"

#include "shard/checkpoint/checkpoint.h"
#include "shard/read/transfer.h"

enum { SAMPLE_SIZE = 64 * 64 * 4 };

/* Write the files of two ranks, each with its own metadata when
 * @local, and all metadata in one file else. The bytes of "w" start at
 * @first and count up. */
void sample_write(const struct test_folder *folder, bool local,
		  unsigned char first);
/* The same with all metadata in one file, and each item behind the extension
 * stream.zstd/1. */
void sample_write_coded(const struct test_folder *folder, unsigned char first);

/*
 * The same tensors in safetensors files; the scalar "s" is zero.
 * SAMPLE_SHARDED: each rank's half of "w" in s1 and s2 with its place;
 * SAMPLE_INDEXED: "w" in a, "s" in b, and an index that names both.
 */
enum sample_files { SAMPLE_SHARDED, SAMPLE_INDEXED };
void sample_write_safetensors(const struct test_folder *folder,
			      enum sample_files kind, unsigned char first);

/* Byte @index of "w". */
unsigned char sample_byte(unsigned char first, unsigned index);

/* All of tensor @name through @reply. 0 or -errno. */
int sample_read(const struct checkpoint *checkpoint, const char *name,
		struct reply *reply);
/* What @reply holds is "w". */
void sample_check(const struct reply *reply, unsigned char first);

#endif
