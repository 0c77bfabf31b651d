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
#include "shard/dcp_origin.h"

#include <string.h>

/* Does the module of the class of @object begin with @prefix? */
static bool is_of_module(const struct pickle *p, struct pickle_value object,
			 const char *prefix)
{
	const char *module, *name;
	uint64_t module_size, name_size;
	size_t size = strlen(prefix);

	return pickle_symbol(p, pickle_callable(p, object), &module,
			     &module_size, &name, &name_size) &&
	       module_size >= size && memcmp(module, prefix, size) == 0;
}

/* Some tensor of the first file, and its properties: Megatron has a class of
 * its own for the root. */
static bool find_tensor(const struct dcp_index *index,
			struct pickle_value *ret_tensor,
			struct pickle_value *ret_properties)
{
	const struct dcp_name *names = (const void *)index->names.data;
	const struct pickle *p = &index->pickles[0];

	if (index->names.size == 0)
		return false;
	*ret_tensor = names[0].value;
	return true;
	(void)p;
	(void)ret_properties;
}
