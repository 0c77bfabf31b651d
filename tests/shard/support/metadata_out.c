/* SPDX-License-Identifier: Apache-2.0 */
#include "support/metadata_out.h"

#include "support/test.h"
#include "support/catalog_out.h"

#include "shard/dcp/dcp.h"

#include <string.h>

static void put_class(const struct metadata *m, struct array *out,
		      const char *file, const char *name)
{
	put_global(out, m->old ?
		   file[0] == 'm' ?
			   "torch.distributed._shard.checkpoint.metadata" :
			   "torch.distributed._shard.checkpoint.filesystem" :
		   file[0] == 'm' ?
			   "torch.distributed.checkpoint.metadata" :
			   "torch.distributed.checkpoint.filesystem",
		   name);
	PUT(out, ")\x81");
}

static void put_memory_format(const struct metadata *m, struct array *out)
{
	if (m->old) {
		put_global(out, "builtins", "getattr");
		put_global(out, "torch.distributed._shard.sharded_tensor."
				"metadata", "MEM_FORMAT_ENCODING");
		put_text(out, "TORCH_CONTIGUOUS_FORMAT");
		PUT(out, "\x86R");
		return;
	}
	put_global(out, "torch.distributed.checkpoint.metadata",
		   "_MEM_FORMAT_ENCODING");
	PUT(out, "K\0\x85R");
}

/* (dtype, layout, requires_grad, memory format, pin_memory) */
static void put_properties(const struct metadata *m, struct array *out,
			   const char *dtype)
{
	if (m->old || m->old_properties)
		put_global(out, "torch.distributed._shard.sharded_tensor."
				"metadata", "TensorProperties");
	else
		put_global(out, "torch.distributed.checkpoint.metadata",
			   "TensorProperties");
	PUT(out, ")\x81(");
	put_global(out, "torch", dtype);
	put_global(out, "torch.serialization", "_get_layout");
	put_text(out, "torch.strided");
	PUT(out, "\x85R\x89");
	put_memory_format(m, out);
	PUT(out, "\x89tb");
}

void metadata_begin(struct metadata *m, const char *name, const char *dtype,
		    unsigned ndim, const uint64_t *size)
{
	struct array *out = &m->tensors;

	put_text(out, name);
	put_class(m, out, "metadata", "TensorStorageMetadata");
	PUT(out, "}(");
	put_text(out, "properties");
	put_properties(m, out, dtype);
	put_text(out, "size");
	put_size(out, size, ndim);
	put_text(out, "chunks");
	PUT(out, "](");
}

void metadata_chunk(struct metadata *m, const struct box *box)
{
	struct array *out = &m->tensors;

	put_class(m, out, "metadata", "ChunkStorageMetadata");
	PUT(out, "}(");
	put_text(out, "offsets");
	put_size(out, box->offset, box->ndim);
	put_text(out, "sizes");
	put_size(out, box->size, box->ndim);
	PUT(out, "ub");
}

void metadata_end(struct metadata *m)
{
	PUT(&m->tensors, "eub");
}

void metadata_object(struct metadata *m, const char *name)
{
	put_text(&m->tensors, name);
	put_class(m, &m->tensors, "metadata", "BytesStorageMetadata");
}

void metadata_item(struct metadata *m, const char *name, const struct box *box,
		   struct metadata_place place)
{
	struct array *out = &m->storage;

	put_class(m, out, "metadata", "MetadataIndex");
	PUT(out, "}(");
	put_text(out, "fqn");
	put_text(out, name);
	if (box) {
		put_text(out, "offset");
		put_size(out, box->offset, box->ndim);
	}
	put_text(out, "index");
	PUT(out, "Nub");
	put_class(m, out, "filesystem", "_StorageInfo");
	PUT(out, "}(");
	put_text(out, "relative_path");
	put_text(out, place.path);
	put_text(out, "offset");
	put_number(out, (int64_t)place.offset);
	put_text(out, "length");
	put_number(out, (int64_t)place.length);
	if (m->transform || m->transforms.size > 0)
		put_text(out, "transform_descriptors");
	if (m->transform) {
		PUT(out, "]");
		put_text(out, m->transform);
		PUT(out, "a");
	}
	put_bytes(out, m->transforms.data, m->transforms.size);
	PUT(out, "ub");
}

void metadata_whole(struct metadata *m, const char *name, const char *dtype,
		    const struct box *shape, struct metadata_place place)
{
	metadata_begin(m, name, dtype, shape->ndim, shape->size);
	metadata_chunk(m, shape);
	metadata_end(m);
	metadata_item(m, name, shape, place);
}

/* What Megatron sets on the root, and nobody else knows. */
static void put_megatron(struct array *out)
{
	put_text(out, "mcore_data");
	PUT(out, "}");
	put_text(out, "w");
	PUT(out, "}");
	put_text(out, "nd_reformulated_orig_global_shape");
	PUT(out, "K\2K\3\x86ss");
	put_text(out, "all_local_plans");
	PUT(out, "]");
	put_global(out, "megatron.core.dist_checkpointing.strategies.torch",
		   "MCoreSavePlan");
	PUT(out, ")\x81}");
	put_text(out, "items");
	PUT(out, "]sba");
}

void metadata_path(struct metadata *m, const char *name,
		   const struct array *path)
{
	put_text(&m->paths, name);
	put_bytes(&m->paths, path->data, path->size);
}

static void put_planner(struct metadata *m, struct array *out)
{
	put_text(out, "planner_data");
	if (m->paths.size > 0) {
		PUT(out, "}(");
		put_bytes(out, m->paths.data, m->paths.size);
		PUT(out, "u");
	} else if (m->planner.size > 0) {
		put_bytes(out, m->planner.data, m->planner.size);
	} else {
		PUT(out, "N");
	}
}

void metadata_finish(struct metadata *m, struct array *out)
{
	put_proto(out, m->protocol ? m->protocol : 4);
	if (m->megatron) {
		put_global(out, "megatron.core.dist_checkpointing.strategies."
				"torch", "MCoreMetadata");
		PUT(out, ")\x81");
	} else {
		put_class(m, out, "metadata", "Metadata");
	}
	PUT(out, "}(");
	put_text(out, "state_dict_metadata");
	PUT(out, "}(");
	put_bytes(out, m->tensors.data, m->tensors.size);
	PUT(out, "u");
	put_planner(m, out);
	put_text(out, "storage_data");
	PUT(out, "}(");
	put_bytes(out, m->storage.data, m->storage.size);
	PUT(out, "u");
	if (m->megatron)
		put_megatron(out);
	put_bytes(out, m->root.data, m->root.size);
	PUT(out, "ub.");
	array_finish(&m->transforms);
	array_finish(&m->planner);
	array_finish(&m->root);
	array_finish(&m->tensors);
	array_finish(&m->storage);
	array_finish(&m->paths);
}

struct catalog *metadata_read(struct array *texts, unsigned count, bool local,
			      struct notes *notes)
{
	struct catalog_builder *builder = catalog_out_create(notes);
	struct fault fault = { .reason = "" };
	struct dcp_file files[8];
	unsigned i, bad;

	assert_true(count <= COUNT_OF(files));
	for (i = 0; i < count; i++)
		files[i] = (struct dcp_file){ texts[i].data, texts[i].size,
					      local };
	if (dcp_read(builder, files, count, &fault, &bad))
		fail_msg("file %u, byte %llu: %s %s", bad,
			 (unsigned long long)fault.offset, fault.reason,
			 fault.detail);
	for (i = 0; i < count; i++)
		array_finish(&texts[i]);
	return catalog_out_finish(builder);
}

struct catalog *metadata_catalog(struct metadata *metadata)
{
	struct array text = { .data = NULL };
	struct notes notes;

	metadata_finish(metadata, &text);
	return metadata_read(&text, 1, false, &notes);
}
