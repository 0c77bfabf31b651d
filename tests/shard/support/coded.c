/* SPDX-License-Identifier: Apache-2.0 */
#include "support/coded.h"

#include "support/placing.h"

#include "support/test.h"
#include "support/reading.h"
#include "support/zstd_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The stored item of a part. */
static void read_item(const struct test_store *store,
		      const struct catalog_shard *shard, struct array *out)
{
	const char *path = catalog_text(store->catalog,
		catalog_file(store->catalog, shard->file)->path);
	int fd = openat(store->folder.fd, path, O_RDONLY | O_CLOEXEC);
	char *data = array_add(out, shard->size);

	assert_true(fd >= 0 && data);
	assert_int_equal(io_read(fd, data, shard->size, shard->offset), 0);
	close(fd);
}

static void file_name(unsigned file, char name[32])
{
	snprintf(name, 32, "coded%u", file);
}

/* "stream.zstd/1" so often. */
static void put_chain(struct array *out, const struct coded_form *form)
{
	unsigned i;

	if (form->chain)
		put_bytes(out, form->chain, strlen(form->chain));
	for (i = 0; i < form->depth && !form->chain; i++)
		PUT(out, "stream.zstd/1\n");
}

static void add_part(struct coded *coded, struct catalog_builder *builder,
		     unsigned part, const struct coded_form *form,
		     struct array files[CODED_FILES])
{
	const struct test_store *store = &coded->store;
	const struct catalog_entry *entry = catalog_entry(store->catalog, 0);
	struct array item = { .data = NULL }, chain = { .data = NULL }, out;
	unsigned number = part % CODED_FILES;
	struct catalog_item place = { .offset = files[number].size };
	struct fault fault;
	struct box box;
	char name[32];

	read_item(store, catalog_shard(store->catalog, entry, part), &item);
	out = zstd_out_nested(item.data, item.size, form->depth, form->forms);
	put_bytes(&files[number], out.data, out.size);
	place.size = out.size;
	put_chain(&chain, form);
	if (chain.size > 0)
		assert_int_equal(catalog_builder_transform(builder, chain.data,
			chain.size, &place.flags), 0);
	file_name(number, name);
	assert_int_equal(catalog_builder_file(builder, name, strlen(name),
					      &place.file), 0);
	catalog_box(store->catalog, entry, part, &box);
	assert_int_equal(catalog_builder_shard(builder, &box, &place, &fault),
			 0);
	array_finish(&item);
	array_finish(&chain);
	array_finish(&out);
}

void coded_make(struct coded *coded, const struct world *world, bool plain,
		struct dice *dice,
		struct coded_form (*form)(struct dice *dice, unsigned part))
{
	struct array files[CODED_FILES] = { { .data = NULL } };
	struct catalog_builder *builder;
	struct notes notes;
	char name[32];
	unsigned i;

	*coded = (struct coded){ .catalog = NULL };
	test_store_make(&coded->store, world, plain, dice);
	builder = catalog_out_create(&notes);
	catalog_out_begin(builder, "w", world->dtype, &world->shape);
	for (i = 0; i < catalog_entry(coded->store.catalog, 0)->shard_count;
	     i++) {
		struct coded_form chosen = form(dice, i);

		add_part(coded, builder, i, &chosen, files);
	}
	catalog_out_end(builder);
	coded->catalog = catalog_out_finish(builder);
	for (i = 0; i < CODED_FILES; i++) {
		file_name(i, name);
		folder_write(&coded->store.folder, name, files[i].data,
			     files[i].size);
		array_finish(&files[i]);
	}
}

void coded_close(struct coded *coded)
{
	reply_release(coded->store.reply);
	source_decoded_destroy(coded->source);
	source_file_destroy(coded->files);
	placement_destroy(coded->placement);
	coded->source = NULL;
	coded->files = NULL;
	coded->placement = NULL;
}

void coded_open(struct coded *coded, struct decoded_cache *cache)
{
	coded_close(coded);
	coded->placement = placing_folder(coded->store.folder.fd,
					  coded->catalog);
	atomic_store(&coded->stale, false);
	coded->files = source_file_create(coded->placement, coded->catalog,
					  &coded->stale);
	assert_non_null(coded->files);
	coded->source = source_decoded_create(coded->files, coded->catalog,
					      cache);
	assert_non_null(coded->source);
}

void coded_free(struct coded *coded)
{
	coded_close(coded);
	catalog_put(coded->catalog);
	test_store_free(&coded->store);
}

const struct catalog_shard *coded_shard(const struct coded *coded,
					unsigned part)
{
	return catalog_shard(coded->catalog, catalog_entry(coded->catalog, 0),
			     part);
}

const char *coded_path(const struct coded *coded, unsigned part)
{
	return catalog_text(coded->catalog, catalog_file(coded->catalog,
		coded_shard(coded, part)->file)->path);
}

int coded_read(const struct coded *coded, struct reply *reply,
	       const struct box *selection, uint64_t offset, uint64_t size)
{
	const struct transfer transfer = {
		.source = source_decoded_source(coded->source),
		.catalog = coded->catalog,
		.entry = catalog_entry(coded->catalog, 0),
		.selection = selection ? selection : &coded->store.world.shape,
		.offset = offset, .size = size,
	};

	return reading(&transfer, reply);
}

void coded_check(const struct coded *coded, const struct box *selection,
		 uint64_t offset, uint64_t size)
{
	unsigned char *expected = malloc(size + 1), *found = malloc(size + 1);
	struct reply *reply = coded->store.reply;
	int error = coded_read(coded, reply, selection, offset, size);

	assert_true(expected && found);
	if (test_store_expect(&coded->store, selection, offset, size, expected)) {
		if (error)
			fail_msg("error %d: %s %s", error,
				 reply->fault.error ? reply->fault.reason :
				 "no fault", reply->fault.detail);
		test_store_copy(&coded->store, found);
		assert_memory_equal(found, expected, size);
	} else {
		assert_int_equal(error, -EIO);
	}
	reply_release(reply);
	free(expected);
	free(found);
}

void coded_rows(struct coded *coded, struct dice *dice,
		struct coded_form (*form)(struct dice *dice, unsigned part))
{
	struct world world = { .dtype = DTYPE_F32,
			       .part_count = CODED_PARTS };
	unsigned i;

	world.shape = BOX2(0, 0, 4 * CODED_PARTS, 1024);
	for (i = 0; i < CODED_PARTS; i++)
		world.parts[i] = BOX2(4 * i, 0, 4, 1024);
	coded_make(coded, &world, true, dice, form);
}

int coded_read_part(const struct coded *coded, unsigned part)
{
	return coded_read(coded, coded->store.reply, NULL,
			  (uint64_t)part * CODED_PART_SIZE, CODED_PART_SIZE);
}

void coded_check_part(const struct coded *coded, unsigned part)
{
	coded_check(coded, NULL, (uint64_t)part * CODED_PART_SIZE,
		    CODED_PART_SIZE);
}
