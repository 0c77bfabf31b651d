/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of a shard gathered from a file of random bytes, against picking up
 * each element by hand. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/folder.h"

#include "shard/read/gather.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_SIZE = 4 << 20 };

static struct dice dice;
static struct test_folder folder;
static unsigned char *content;
static struct io_file file;

static int setup(void **state)
{
	unsigned i;

	(void)state;
	content = malloc(FILE_SIZE);
	assert_non_null(content);
	for (i = 0; i < FILE_SIZE; i++)
		content[i] = (unsigned char)dice_any(&dice);
	folder_make(&folder);
	folder_write(&folder, "f", content, FILE_SIZE);
	file.fd = openat(folder.fd, "f", O_RDONLY | O_CLOEXEC);
	return file.fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	close(file.fd);
	folder_remove(&folder);
	free(content);
	return 0;
}

/* Strides with gaps of any size, in any order of the axes, that fit. */
static bool make_layout(const struct box *box, uint64_t size,
			struct layout *layout)
{
	uint64_t stride = 1, taken = 1;
	unsigned i, turn = (unsigned)dice_below(&dice, 7);

	for (i = 0; i < box->ndim; i++) {
		unsigned axis = (i + turn) % box->ndim;

		if (dice_chance(&dice, 30))
			stride += dice_below(&dice, 3000);
		layout->stride[axis] = dice_chance(&dice, 5) ? 0 : stride;
		taken += (box->size[axis] - 1) * layout->stride[axis];
		stride *= box->size[axis];
	}
	if (taken * size > FILE_SIZE)
		return false;
	layout->offset = FILE_SIZE - taken * size;
	if (dice_chance(&dice, 70))
		layout->offset = dice_below(&dice, layout->offset + 1);
	return true;
}

/* One element as it is to be seen. */
static void pick_element(enum dtype dtype, unsigned flags,
			 const unsigned char *from, unsigned char *to)
{
	const struct dtype_info *info = dtype_info(dtype);
	unsigned width = info->component, part, i;

	for (part = 0; part < info->size / width; part++) {
		bool flip = flags & LAYOUT_NEG;
		uint64_t number = 0;

		for (i = 0; i < width; i++)
			to[part * width + i] = from[part * width +
				(flags & LAYOUT_SWAP ? width - 1 - i : i)];
		if (info->kind == DTYPE_KIND_COMPLEX && part == 1 &&
		    flags & LAYOUT_CONJ)
			flip = !flip;
		if (!flip || info->kind == DTYPE_KIND_BITS)
			continue;
		if (info->kind != DTYPE_KIND_INTEGER) {
			to[part * width + width - 1] ^= 0x80;
			continue;
		}
		memcpy(&number, to, width);
		number = -number;
		memcpy(to, &number, width);
	}
}

static void check_piece(const struct plan *plan, const struct piece *piece,
			const struct layout *layout, uint64_t size)
{
	enum dtype dtype = (enum dtype)plan->entry->dtype;
	unsigned char *target = malloc(size), *window = malloc(LIMIT_READ_SIZE);
	unsigned char *expected = malloc(size);
	uint64_t element = dtype_info(dtype)->size;
	const struct gather gather = {
		.file = file, .file_size = FILE_SIZE, .target = target,
		.window = window, .dtype = dtype,
		.flags = layout->flags,
	};
	struct box run = { .ndim = plan->entry->ndim };
	uint64_t index[LIMIT_NDIM] = { 0 };
	struct extents extents;
	unsigned i;

	assert_true(target && window && expected);
	memset(target, 0xcc, size);
	memset(expected, 0xcc, size);
	extents_init(&extents, plan, piece, layout);
	assert_int_equal(gather_extents(&gather, &extents), 0);
	memcpy(run.size, piece->count, run.ndim * sizeof(uint64_t));
	do {
		uint64_t at = piece->target, from = 0;

		for (i = 0; i < run.ndim; i++) {
			at += index[i] * plan->stride[i];
			from += (piece->offset[i] + index[i]) *
				layout->stride[i];
		}
		pick_element(dtype, layout->flags,
			     content + layout->offset + from * element,
			     expected + at * element);
	} while (world_step(&run, index));
	assert_memory_equal(target, expected, size);
	free(target);
	free(window);
	free(expected);
}

static void random_pieces(void **state)
{
	const struct world_limits limits = { .ndim = 4, .volume = 4000 };
	unsigned round;

	(void)state;
	for (round = 0; round < 700; round++) {
		struct layout layout = { .flags = 0 };
		struct box selection;
		struct piece piece;
		struct plan plan;
		struct world world;
		struct catalog *catalog;
		uint64_t size;

		world_make(&world, &limits, &dice);
		world.part_count = 1;
		world.parts[0] = world.shape;
		size = dtype_info(world.dtype)->size;
		layout.flags = (unsigned)dice_below(&dice, 8);
		if (box_volume(&world.shape) == 0 ||
		    !make_layout(&world.shape, size, &layout))
			continue;
		catalog = catalog_out_world(&world);
		world_pick(&dice, &world.shape, &selection);
		plan_init(&plan, catalog, catalog_entry(catalog, 0),
			  &selection, (struct plan_range){
				0, box_volume(&selection) });
		while (plan_next(&plan, &piece))
			check_piece(&plan, &piece, &layout,
				    box_volume(&selection) * size);
		catalog_put(catalog);
	}
}

/* A file that is shorter than it was: an error, whatever was read before. */
static void file_that_ends_too_early(void **state)
{
	const struct box shape = BOX2(0, 0, 100, 100);
	const struct world world = { .dtype = DTYPE_F32, .shape = shape,
				     .part_count = 1, .parts = { shape } };
	struct catalog *catalog = catalog_out_world(&world);
	static unsigned char target[40000], window[LIMIT_READ_SIZE];
	const struct gather gather = {
		.file = file, .file_size = FILE_SIZE, .target = target,
		.window = window, .dtype = DTYPE_F32,
	};
	static const uint64_t strides[3][2] = { { 100, 1 }, { 1, 100 },
						{ 200, 2 } };
	unsigned i;

	(void)state;
	for (i = 0; i < 3; i++) {
		struct layout layout = { .offset = FILE_SIZE - 80000 };
		struct extents extents;
		struct piece piece;
		struct plan plan;
		int fd = openat(folder.fd, "f", O_WRONLY | O_CLOEXEC);

		assert_int_equal(ftruncate(fd, FILE_SIZE - 70000), 0);
		close(fd);
		memcpy(layout.stride, strides[i], sizeof(strides[i]));
		plan_init(&plan, catalog, catalog_entry(catalog, 0),
			  &world.shape, (struct plan_range){ 0, 10000 });
		assert_true(plan_next(&plan, &piece));
		extents_init(&extents, &plan, &piece, &layout);
		assert_int_equal(gather_extents(&gather, &extents), -EIO);
	}
	catalog_put(catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_pieces),
		cmocka_unit_test(file_that_ends_too_early),
	};

	dice = dice_make();
	return cmocka_run_group_tests_name("gather", tests, setup, teardown);
}
