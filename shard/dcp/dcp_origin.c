/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields and modules of the metadata as releases of torch brought them:
 *
 *	1.13	modules below torch.distributed._shard.checkpoint
 *	2.0	modules below torch.distributed.checkpoint, but properties of
 *		tensors still of torch.distributed._shard.sharded_tensor
 *	2.3	properties, too
 *	2.4	Metadata.storage_meta
 *	2.7	StorageMeta.modules
 *	2.9	Metadata.version; __N.metadata
 *
 * A field that a class has is in the state of its objects even when it is
 * None.
 */
#include "shard/dcp/dcp_origin.h"

#include <string.h>

/* Does the module of the class of @object begin with @prefix? */
static bool is_of_module(const struct pickle *p, struct pickle_value object,
			 const char *prefix)
{
	struct pickle_symbol class;
	size_t size = strlen(prefix);

	return pickle_symbol(p, pickle_callable(p, object), &class) &&
	       class.module_size >= size &&
	       memcmp(class.module, prefix, size) == 0;
}

/* The properties of some tensor of the first file. */
static bool find_properties(const struct dcp_index *index,
			    struct pickle_value *ret)
{
	const struct dcp_name *names = (const void *)index->names.data;
	uint64_t count = index->names.size / sizeof(*names), i;

	for (i = 0; i < count && names[i].file == 0; i++)
		if (dcp_attribute(&index->pickles[0], names[i].value,
				  "properties", ret))
			return true;
	return false;
}

/* By the modules alone, of what has no newer fields. */
static struct catalog_origin judge_modules(const struct dcp_index *index)
{
	const struct dcp_name *names = (const void *)index->names.data;
	const struct pickle *p = &index->pickles[0];
	static const char old[] = "torch.distributed._shard.";
	struct pickle_value properties;

	/* Megatron has a class of its own for the root. */
	if (is_of_module(p, p->root, old) ||
	    (index->names.size > 0 && is_of_module(p, names[0].value, old)))
		return (struct catalog_origin){ CATALOG_DCP, 113, 113, 0 };
	if (!find_properties(index, &properties))
		return (struct catalog_origin){ CATALOG_DCP, 200, 203, 0 };
	if (is_of_module(p, properties, old))
		return (struct catalog_origin){ CATALOG_DCP, 200, 202, 0 };
	return (struct catalog_origin){ CATALOG_DCP, 203, 203, 0 };
}

struct catalog_origin dcp_origin(const struct dcp_index *index, bool local)
{
	const struct pickle *p = &index->pickles[0];
	struct pickle_value value, modules;

	if (local)
		return (struct catalog_origin){ CATALOG_DCP_LOCAL, 209, 0, 0 };
	if (dcp_attribute(p, p->root, "version", &value))
		return (struct catalog_origin){ CATALOG_DCP, 209, 0, 0 };
	if (!dcp_attribute(p, p->root, "storage_meta", &value))
		return judge_modules(index);
	if (dcp_attribute(p, value, "modules", &modules))
		return (struct catalog_origin){ CATALOG_DCP, 207, 208, 0 };
	/* Other writers than torch's own may leave it None. */
	return (struct catalog_origin){
		.format = CATALOG_DCP, .torch_first = 204,
		.torch_last = pickle_kind(p, value) == PICKLE_NONE ? 208 : 206,
	};
}
