/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/safetensors/blob.h"

#include <string.h>

int blob_detect(const struct input *input, bool *ret_found)
{
	unsigned char start[9];
	int error;

	*ret_found = false;
	if (input->size < sizeof(start))
		return 0;
	error = input->read(input, start, sizeof(start), 0);
	if (!error)
		*ret_found = memcmp(start, "PK\3\4", 4) != 0 &&
			     start[8] == '{';
	return error;
}

int blob_open(const struct input *input, struct blob *ret,
	      struct fault *fault)
{
	struct blob blob;
	int error = safetensors_read(input, false, &blob.header, fault);

	if (error)
		return error;
	error = sharding_read(&blob.header, &blob.sharding, fault);
	if (error)
		safetensors_finish(&blob.header);
	else
		*ret = blob;
	return error;
}

void blob_close(struct blob *blob)
{
	safetensors_finish(&blob->header);
	sharding_finish(&blob->sharding);
}

enum blob_match blob_find(const struct blob *blob,
			  const struct catalog *catalog,
			  const struct catalog_entry *entry, uint64_t index,
			  uint64_t *ret_offset)
{
	int64_t found = safetensors_find(&blob->header,
					 catalog_text(catalog, entry->name),
					 entry->name_size);
	const struct safetensors_tensor *tensor;
	struct sharding_piece piece;
	uint64_t sizes[LIMIT_NDIM];
	struct box box;
	unsigned i;

	if (found < 0)
		return BLOB_NO_TENSOR;
	tensor = safetensors_tensor(&blob->header, (uint64_t)found);
	if (tensor->dtype != entry->dtype)
		return BLOB_OTHER_TYPE;
	if (tensor->ndim != entry->ndim)
		return BLOB_OTHER_SHAPE;
	catalog_box(catalog, entry, index, &box);
	safetensors_pack((enum dtype)tensor->dtype, tensor->ndim,
			 safetensors_dims(&blob->header, tensor), sizes);
	sharding_piece(&blob->sharding, &blob->header, (uint64_t)found,
		       &piece);
	for (i = 0; i < box.ndim; i++) {
		if (sizes[i] != box.size[i])
			return BLOB_OTHER_SHAPE;
		/* Of two parts that a rank has of one tensor, torch keeps the
		 * last: both point here. */
		if (piece.offsets && piece.offsets[i] != box.offset[i])
			return BLOB_NO_TENSOR;
	}
	*ret_offset = blob->header.data_offset + tensor->begin;
	return BLOB_MATCH;
}

const char *blob_reason(enum blob_match match)
{
	static const char *const reasons[] = {
		[BLOB_MATCH] = "",
		[BLOB_NO_TENSOR] =
			"stored safetensors without this part of the tensor",
		[BLOB_OTHER_TYPE] =
			"stored tensor and metadata differ in type",
		[BLOB_OTHER_SHAPE] =
			"stored tensor and metadata differ in shape",
	};

	return reasons[match];
}
