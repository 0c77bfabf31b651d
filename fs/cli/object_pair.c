/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/object_pair.h"

#include "shard/dcp/object_json.h"
#include "shard/dcp/torch_archive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int read_side(struct object_pair *pair, unsigned side,
		     int (*use)(void *context, const struct input *input))
{
	const struct checkpoint *checkpoint = pair->checkpoints[side];

	pair->side = side;
	return checkpoint_item(checkpoint,
			       catalog_shard(checkpoint->catalog,
					     pair->entries[side], 0),
			       use, pair);
}

static int compare_bytes(struct object_pair *pair, const struct input *right)
{
	uint64_t size = right->size, offset, part;
	int error = 0;

	pair->differ = pair->left->size != right->size;
	for (offset = 0; offset < size && !pair->differ && !error;
	     offset += part) {
		part = size - offset < LIMIT_READ_SIZE ? size - offset :
							 LIMIT_READ_SIZE;
		pair->side = 0;
		error = pair->left->read(pair->left, pair->buffers[0], part,
					 offset);
		if (error)
			break;
		pair->side = 1;
		error = right->read(right, pair->buffers[1], part, offset);
		if (!error)
			pair->differ = memcmp(pair->buffers[0],
					      pair->buffers[1], part) != 0;
	}
	return error;
}

/* 0 or -errno: not plain data, or out of memory. */
static int make_text(const struct input *input, struct array *out)
{
	struct fault fault = { .error = 0 };
	struct pickle pickle;
	void *data;
	int error = torch_archive_pickle(input, LIMIT_OBJECT_PICKLE_SIZE, &data,
					 &pickle, &fault);

	if (error)
		return error;
	error = object_json(&pickle, out);
	pickle_finish(&pickle);
	free(data);
	return error;
}

static int compare_right(void *context, const struct input *right)
{
	struct array texts[2] = { { .data = NULL }, { .data = NULL } };
	struct object_pair *pair = context;
	int error = compare_bytes(pair, right);

	if (error || !pair->differ)
		return error;
	error = make_text(pair->left, &texts[0]);
	if (!error)
		error = make_text(right, &texts[1]);
	if (!error)
		pair->differ = texts[0].size != texts[1].size ||
			       memcmp(texts[0].data, texts[1].data,
				      texts[0].size) != 0;
	array_finish(&texts[0]);
	array_finish(&texts[1]);
	/* All else is no plain data. */
	return error == -ENOMEM ? error : 0;
}

static int use_left(void *context, const struct input *left)
{
	struct object_pair *pair = context;

	pair->left = left;
	return read_side(pair, 1, compare_right);
}

int object_pair_compare(struct object_pair *pair)
{
	return read_side(pair, 0, use_left);
}
