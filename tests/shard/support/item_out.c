/* SPDX-License-Identifier: Apache-2.0 */
#include "support/item_out.h"

#include "support/test.h"
#include "support/archive_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct item_spec item_spec_make(enum dtype dtype, unsigned ndim,
				const uint64_t *size)
{
	struct item_spec spec = { .dtype = dtype, .ndim = ndim };
	uint64_t count = 1;
	unsigned i;

	for (i = ndim; i > 0; i--) {
		spec.size[i - 1] = size[i - 1];
		spec.stride[i - 1] = count;
		count *= size[i - 1];
	}
	spec.storage_size = count * dtype_info(dtype)->size;
	return spec;
}

void item_out_storage(struct array *pickle, const char *type, const char *key,
		      uint64_t count)
{
	PUT(pickle, "(");
	put_text(pickle, "storage");
	put_global(pickle, strcmp(type, "UntypedStorage") ? "torch" :
		   "torch.storage", type);
	put_text(pickle, key);
	put_text(pickle, "cpu");
	put_number(pickle, (int64_t)count);
	PUT(pickle, "tQ");
}

static void put_bits(struct array *pickle, const struct item_spec *spec)
{
	if (!spec->conj && !spec->neg)
		return;
	PUT(pickle, "}(");
	if (spec->conj) {
		put_text(pickle, "conj");
		PUT(pickle, "\x88");
	}
	if (spec->neg) {
		put_text(pickle, "neg");
		PUT(pickle, "\x88");
	}
	PUT(pickle, "u");
}

void item_out_call(struct array *pickle, const struct item_spec *spec)
{
	const struct dtype_info *info = dtype_info(spec->dtype);
	char type[32] = "UntypedStorage";

	if (info->storage)
		snprintf(type, sizeof(type), "%sStorage", info->storage);
	put_global(pickle, "torch._utils", info->storage ?
		   "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
	PUT(pickle, "(");
	item_out_storage(pickle, type, "0", info->storage && info->size ?
			 spec->storage_size / info->size : spec->storage_size);
	put_number(pickle, (int64_t)spec->first);
	put_tuple(pickle, spec->size, spec->ndim);
	put_tuple(pickle, spec->stride, spec->ndim);
	PUT(pickle, "\x89");
	put_global(pickle, "collections", "OrderedDict");
	PUT(pickle, ")R");
	if (!info->storage)
		put_global(pickle, "torch", info->torch);
	put_bits(pickle, spec);
	PUT(pickle, "tR");
}

void item_out_archive(struct array *out, const struct array *pickle,
		      const struct item_spec *spec)
{
	struct archive archive = { .checked = spec->checked };
	void *zeros = NULL;

	if (!spec->storage) {
		zeros = calloc(1, spec->storage_size + 1);
		assert_non_null(zeros);
	}
	archive_add(&archive, "archive/data.pkl", pickle->data, pickle->size);
	archive_add(&archive, "archive/.format_version", "1", 1);
	if (spec->byte_order)
		archive_add(&archive, "archive/byteorder", spec->byte_order,
			    strlen(spec->byte_order));
	archive_add(&archive, "archive/data/0",
		    spec->storage ? spec->storage : zeros,
		    spec->storage_size);
	archive_add(&archive, "archive/version", "3\n", 2);
	archive_end(&archive);
	put_bytes(out, archive.out.data, archive.out.size);
	archive_free(&archive);
	free(zeros);
}

void item_out(struct array *out, const struct item_spec *spec)
{
	struct array pickle = { .data = NULL };

	put_proto(&pickle, 2);
	item_out_call(&pickle, spec);
	PUT(&pickle, ".");
	item_out_archive(out, &pickle, spec);
	array_finish(&pickle);
}
