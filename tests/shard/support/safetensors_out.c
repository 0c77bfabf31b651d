/* SPDX-License-Identifier: Apache-2.0 */
#include "support/safetensors_out.h"

#include "support/test.h"
#include "support/dice.h"
#include "support/put.h"

#include <string.h>

unsigned char safetensors_byte(uint64_t place)
{
	return (unsigned char)dice_mix(place);
}

void safetensors_out(struct array *out, const char *header, size_t size,
		     uint64_t data_size)
{
	uint64_t i;

	put_u64(out, size);
	put_bytes(out, header, size);
	for (i = 0; i < data_size; i++)
		put_u8(out, safetensors_byte(i));
}

static void check_tensor(const struct safetensors *s, uint64_t index)
{
	const struct safetensors_tensor *tensor = safetensors_tensor(s, index);
	const uint64_t *sizes = safetensors_dims(s, tensor);
	const struct dtype_info *info = dtype_info(tensor->dtype);
	unsigned __int128 bits = info->bits;
	unsigned i;

	assert_true(info->order > 0);
	assert_true(tensor->ndim <= LIMIT_NDIM);
	for (i = 0; i < tensor->ndim; i++)
		bits *= sizes[i];
	assert_true(bits == (unsigned __int128)
			    (tensor->end - tensor->begin) * 8);
	assert_true(safetensors_find(s, safetensors_name(s, tensor),
				     tensor->name_size) == (int64_t)index);
}

void safetensors_check(const struct safetensors *safetensors, uint64_t size)
{
	uint64_t i, end = 0;

	for (i = 0; i < safetensors->tensor_count; i++) {
		check_tensor(safetensors, i);
		assert_true(safetensors_tensor(safetensors, i)->begin == end);
		end = safetensors_tensor(safetensors, i)->end;
	}
	assert_true(safetensors->data_size == end);
	assert_true(safetensors->data_offset + end == size);
}
