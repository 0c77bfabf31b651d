/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints whose files lie on several ranks, as each rank shows them: the
 * views, what is read from whom, and what cannot be read.
 */
#include "support/test.h"
#include "support/cat.h"
#include "support/sample.h"
#include "support/ways.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RANKS = 3 };

/* ---- what is alike ------------------------------------------------------- */

static void check_names(struct kernel *kernel)
{
	cat_check_list(kernel, "step", ".metadata\n__0_0.distcp\n"
		       "__1_0.distcp\nf32\nhf\nnpy\nobjects\nsafetensors\n"
		       "tensors\ntensors.json\n");
	cat_check_list(kernel, WAYS_VIEWS "tensors", "s\nw\n");
	cat_check_list(kernel, WAYS_VIEWS "objects", "o.json\no.pt\n");
	cat_check_list(kernel, WAYS_VIEWS "safetensors", "model.safetensors\n");
	/* A mirror has folders and views. */
	cat_check_list(kernel, ".ckptfs/views", "step\n");
	cat_check_list(kernel, ".ckptfs/views/step", "f32\nhf\nnpy\nobjects\n"
		       "safetensors\ntensors\ntensors.json\n");
	assert_int_equal(cat_error(kernel, WAYS_VIEWS ".metadata"), -ENOENT);
}

/* Which rank has which file, of all shards and of those of a slice. */
static void check_shards(struct kernel *kernel)
{
	static const char attribute[] = "user.ckptfs.shards";
	static const char *const owners[] = {
		"\"rank\":0,\"file\":\"__0_0.distcp\"",
		"\"rank\":1,\"file\":\"__1_0.distcp\"",
	};
	char *shards = cat_attribute(kernel, WAYS_VIEWS "tensors/w", attribute);

	assert_non_null(strstr(shards, owners[0]));
	assert_non_null(strstr(shards, owners[1]));
	free(shards);
	shards = cat_attribute(kernel, WAYS_VIEWS "tensors/w[40]", attribute);
	assert_null(strstr(shards, owners[0]));
	assert_non_null(strstr(shards, owners[1]));
	free(shards);
}

/* All ranks say the same of @path, and @part is in it. */
static void check_alike(const char *path, const void *part, size_t part_size)
{
	char *data[RANKS];
	size_t size[RANKS];
	unsigned rank;

	for (rank = 0; rank < RANKS; rank++) {
		assert_int_equal(cat_file(mounts_kernel(rank), path,
					  &data[rank], &size[rank]), 0);
		assert_int_equal(size[rank], size[0]);
		assert_memory_equal(data[rank], data[0], size[0]);
	}
	assert_non_null(memmem(data[0], size[0], part, part_size));
	for (rank = 0; rank < RANKS; rank++)
		free(data[rank]);
}

static void check_alike_w(const char *path)
{
	unsigned char bytes[SAMPLE_SIZE];
	unsigned i;

	for (i = 0; i < SAMPLE_SIZE; i++)
		bytes[i] = sample_byte(1, i);
	check_alike(path, bytes, SAMPLE_SIZE);
}

#define CHECK_ALIKE(path, part) check_alike(path, part, sizeof(part) - 1)

/* ---- where the files are ------------------------------------------------- */

static void checkpoint_in_parts(void **state)
{
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, 1, "step", "__1_0.distcp");
	mounts_move(0, 2, "step", ".metadata");
	ways_start(state, RANKS);
	ways_check_sample(RANKS, 1);
	for (rank = 0; rank < RANKS; rank++) {
		check_names(mounts_kernel(rank));
		check_shards(mounts_kernel(rank));
		cat_check_text(mounts_kernel(rank), WAYS_VIEWS "objects/o.json",
			       "{\"lr\":0.5}\n");
	}
	CHECK_ALIKE(WAYS_VIEWS "objects/o.pt", "archive/data.pkl");
	CHECK_ALIKE(WAYS_VIEWS "tensors.json",
		    "\"rank\":1,\"file\":\"__1_0.distcp\"");
	check_alike_w(WAYS_VIEWS "npy/w.npy");
	check_alike_w(WAYS_VIEWS "hf/model.safetensors");
	check_alike_w(WAYS_VIEWS "safetensors/w.safetensors");
	CHECK_ALIKE("step/.metadata", "__1_0.distcp");
}

static void metadata_in_parts(void **state)
{
	mounts_prepare(RANKS);
	ways_put_sample(2, true, 1);
	mounts_move(2, 1, "step", "__0.metadata");
	mounts_move(2, 0, "step", "__1_0.distcp");
	ways_start(state, RANKS);
	ways_check_sample(RANKS, 1);
}

static void items_behind_zstd(void **state)
{
	struct test_folder folder;
	unsigned rank;

	mounts_prepare(RANKS);
	folder = mounts_folder(0, "step");
	sample_write_coded(&folder, 1);
	close(folder.fd);
	mounts_move(0, 1, "step", "__1_0.distcp");
	ways_start(state, RANKS);
	ways_check_sample(RANKS, 1);
	for (rank = 0; rank < RANKS; rank++)
		cat_check_text(mounts_kernel(rank), WAYS_VIEWS "objects/o.json",
			       "{\"lr\":0.5}\n");
	CHECK_ALIKE(WAYS_VIEWS "objects/o.pt", "archive/data.pkl");
}

/* A tensor's files, the index and the configuration are each elsewhere. */
static void safetensors_in_parts(void **state)
{
	struct test_folder folder;
	unsigned rank;

	mounts_prepare(RANKS);
	folder = mounts_folder(0, "step");
	sample_write_safetensors(&folder, SAMPLE_INDEXED, 1);
	close(folder.fd);
	mounts_move(0, 1, "step", "b.safetensors");
	mounts_move(0, 2, "step", "model.safetensors.index.json");
	ways_put(1, "step", "config.json", "{\"of\": 1}");
	ways_start(state, RANKS);
	ways_check_sample(RANKS, 1);
	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		cat_check_list(kernel, WAYS_VIEWS "tensors", "s\nw\n");
		cat_check_list(kernel, WAYS_VIEWS "hf",
			       "config.json\nmodel.safetensors\n");
		cat_check_text(kernel, WAYS_VIEWS "hf/config.json",
			       "{\"of\": 1}");
	}
	check_alike_w(WAYS_VIEWS "hf/model.safetensors");
}

/* Those in sharded/ count, not what was made from them. */
static void safetensors_sharded(void **state)
{
	struct test_folder folder;

	mounts_prepare(RANKS);
	folder = mounts_folder(0, "step/sharded");
	sample_write_safetensors(&folder, SAMPLE_SHARDED, 1);
	close(folder.fd);
	mounts_move(0, 1, "step/sharded", "s2.safetensors");
	folder = mounts_folder(2, "step");
	sample_write_safetensors(&folder, SAMPLE_INDEXED, 7);
	close(folder.fd);
	ways_start(state, RANKS);
	ways_check_sample(RANKS, 1);
	CHECK_ALIKE(WAYS_VIEWS "tensors.json",
		    "\"rank\":1,\"file\":\"sharded/s2.safetensors\"");
}

/* Files of the folder that was named come before those of the checkpoint. */
static void assets(void **state)
{
	struct mounts_options options = {
		.count = RANKS, .direct = ways_is_direct(state),
	};
	struct test_folder folder;
	unsigned rank;

	mounts_prepare(RANKS);
	ways_put_sample(1, false, 1);
	ways_put(1, "step", "config.json", "of the checkpoint");
	ways_put(2, "step", "tokenizer.json", "of rank 2");
	ways_put(0, "assets", "config.json", "of the folder");
	ways_put(0, "assets", "merges.txt", "merged");
	folder = mounts_folder(0, "assets");
	options.hf_assets = folder.path;
	mounts_start(&options);
	close(folder.fd);
	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		cat_check_list(kernel, WAYS_VIEWS "hf",
			       "config.json\nmerges.txt\nmodel.safetensors\n"
			       "tokenizer.json\n");
		cat_check_text(kernel, WAYS_VIEWS "hf/config.json",
			       "of the folder");
		cat_check_text(kernel, WAYS_VIEWS "hf/merges.txt", "merged");
		cat_check_text(kernel, WAYS_VIEWS "hf/tokenizer.json",
			       "of rank 2");
	}
}

/* ---- what is read from whom ---------------------------------------------- */

/* A figure of status.json, behind @key. */
static unsigned long count(unsigned rank, const char *key)
{
	unsigned long number;
	size_t size;
	char *text, *at;

	assert_int_equal(cat_file(mounts_kernel(rank), ".ckptfs/status.json",
				  &text, &size), 0);
	at = strstr(text, key);
	assert_non_null(at);
	number = strtoul(at + strlen(key), NULL, 10);
	free(text);
	return number;
}

/* Of two that are equal it reads its own, or one that it can open. */
static void nearest_copy(void **state)
{
	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	ways_put_sample(1, false, 1);
	ways_start(state, RANKS);
	ways_check_sample(RANKS, 1);
	assert_int_equal(count(1, "\"peer\": {\"requests\": "), 0);
	assert_int_equal(count(1, "\"served\": {\"requests\": "), 0);
	/* Rank 2 has none: it asks the lowest, unless it can open that. */
	assert_int_equal(count(2, "\"peer\": {\"requests\": ") > 0,
			 !ways_is_direct(state));
	assert_int_equal(count(0, "\"served\": {\"requests\": ") > 0,
			 !ways_is_direct(state));
	assert_int_equal(mounts_count_log("differs"), 0);
	CHECK_ALIKE(WAYS_VIEWS "tensors.json",
		    "\"rank\":0,\"file\":\"__1_0.distcp\"");
}

/* ---- what cannot be read ------------------------------------------------- */

/* The second half of "w" cannot be read, the first can. */
static void check_half(void)
{
	unsigned rank;

	for (rank = 0; rank < RANKS; rank++) {
		struct kernel *kernel = mounts_kernel(rank);

		cat_check_sample(kernel, WAYS_VIEWS "tensors/w[0:32]", 1, 0,
				 WAYS_HALF);
		assert_int_equal(cat_error(kernel,
					   WAYS_VIEWS "tensors/w[32:64]"),
				 -EIO);
		assert_int_equal(cat_error(kernel, WAYS_VIEWS "tensors/w"),
				 -EIO);
		cat_check(kernel, WAYS_VIEWS "tensors/s", "\0\0\0", 4);
		/* A model with a part missing is none. */
		assert_int_equal(cat_error(kernel, WAYS_VIEWS
					   "hf/model.safetensors"), -EIO);
	}
}

/* Not even where another rank has the whole of it. */
static void shard_of_wrong_size(void **state)
{
	struct test_folder folder;

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	mounts_move(0, 1, "step", "__1_0.distcp");
	folder = mounts_folder(1, "step");
	assert_int_equal(linkat(folder.fd, "__1_0.distcp", folder.fd, "whole",
				0), 0);
	assert_int_equal(unlinkat(folder.fd, "__1_0.distcp", 0), 0);
	folder_write(&folder, "__1_0.distcp", "too short", 9);
	close(folder.fd);
	mounts_move(1, 2, "step", "whole");
	folder = mounts_folder(2, "step");
	assert_int_equal(renameat(folder.fd, "whole", folder.fd,
				  "__1_0.distcp"), 0);
	close(folder.fd);
	ways_start(state, RANKS);
	check_half();
	assert_int_equal(mounts_count_log("__1_0.distcp: differs between rank "
					  "1 and rank 2"), RANKS);
	cat_check_text(mounts_kernel(0), "step/__1_0.distcp", "too short");
}

static void shard_of_nobody(void **state)
{
	mounts_prepare(RANKS);
	ways_put_sample(1, false, 1);
	assert_int_equal(unlinkat(mounts_stores[1].fd, "step/__1_0.distcp", 0),
			 0);
	ways_start(state, RANKS);
	check_half();
	assert_true(mounts_count_log("__1_0.distcp: what it holds cannot be "
				     "read") > 0);
}

/* A checkpoint that is refused has stored files and no views, at all ranks;
 * who has read it says why. */
static void refused_checkpoint(void **state)
{
	struct fuse_entry_out entry;
	unsigned rank, look;

	mounts_prepare(RANKS);
	ways_put_sample(0, false, 1);
	assert_int_equal(unlinkat(mounts_stores[0].fd, "step/.metadata", 0),
			 0);
	ways_put(1, "step", ".metadata", "no pickle");
	ways_start(state, RANKS);
	/* While the folder is known, so is what was found out about it. */
	for (rank = 0; rank < RANKS; rank++)
		assert_int_equal(kernel_walk(mounts_kernel(rank), "step",
					     &entry), 0);
	for (look = 0; look < 3; look++) {
		for (rank = 0; rank < RANKS; rank++) {
			struct kernel *kernel = mounts_kernel(rank);

			cat_check_list(kernel, "step", ".metadata\n"
				       "__0_0.distcp\n__1_0.distcp\n");
			assert_int_equal(cat_error(kernel, WAYS_VIEWS
						   "tensors/w"), -ENOENT);
			cat_check_text(kernel, "step/.metadata", "no pickle");
		}
		mounts_later(1000);
	}
	assert_int_equal(mounts_count_log("step/.metadata: byte 0: "), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WAYS_BOTH(checkpoint_in_parts), WAYS_BOTH(metadata_in_parts),
		WAYS_BOTH(items_behind_zstd), WAYS_BOTH(safetensors_in_parts),
		WAYS_BOTH(safetensors_sharded), WAYS_BOTH(assets),
		WAYS_BOTH(nearest_copy), WAYS_BOTH(shard_of_wrong_size),
		WAYS_BOTH(shard_of_nobody), WAYS_BOTH(refused_checkpoint),
	};

	return cmocka_run_group_tests_name("union_checkpoint", tests, NULL,
					   NULL);
}
