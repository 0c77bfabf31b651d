/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint/checkpoint.h"

#include "shard/base/limits.h"
#include "shard/checkpoint/catalog_load.h"
#include "shard/codec/decode.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Data files that are this much younger than the marker were hardly copied
 * together with it: an overwrite began, and did not end. */
static const int64_t overwrite_delay_ns = INT64_C(600) * 1000000000;

/* How many files are looked at each time. */
enum { LOOKS_MAX = 4096 };

static struct store *store_of(const struct checkpoint *c)
{
	return c->folder->store;
}

static const char *file_path(const struct checkpoint *c, uint64_t index)
{
	return catalog_text(c->catalog, catalog_file(c->catalog, index)->path);
}

const struct pin *checkpoint_pin(const struct checkpoint *checkpoint,
				 uint64_t file)
{
	return placement_pin(checkpoint->placement, file);
}

struct owned_catalog checkpoint_owned(const struct checkpoint *checkpoint)
{
	return (struct owned_catalog){ checkpoint->catalog,
				       checkpoint->placement->owners };
}

const struct pin *checkpoint_marker_pin(const struct checkpoint *checkpoint)
{
	const struct metadata_files *markers = &checkpoint->markers;
	unsigned i = 0;

	while (i + 1 < markers->count && markers->files[i].unused)
		i++;
	return &markers->files[i].owner.pin;
}

/* ---- what is odd --------------------------------------------------------- */

static void note_missing(const struct checkpoint *c,
			 struct checkpoint_report *report)
{
	uint64_t i;

	for (i = 0; i < c->catalog->file_count; i++)
		if (c->placement->files[i].error)
			notes_add(&report->notes,
				  "%s: what it holds cannot be read: %s",
				  file_path(c, i),
				  strerror(-c->placement->files[i].error));
}

static void note_newer(const struct checkpoint *c,
		       struct checkpoint_report *report)
{
	int64_t mtime = checkpoint_marker_pin(c)->mtime;
	uint64_t i, newer = 0;

	for (i = 0; i < c->catalog->file_count; i++)
		newer += checkpoint_pin(c, i)->mtime >
			 mtime + overwrite_delay_ns;
	if (newer > 0)
		notes_add(&report->notes,
			  "%s: %" PRIu64 " of the files are newer by more than 10 minutes: an overwrite that was not finished?",
			  c->markers.files[0].name, newer);
}

static bool pin_holds(const struct pin *pin, const struct catalog_shard *shard)
{
	return shard->offset <= pin->size &&
	       shard->size <= pin->size - shard->offset;
}

/* The most common damage: a copy that was cut off, or a full disk. Shards of
 * one file stand together mostly; each such run is noted once. */
static void note_short(const struct checkpoint *c,
		       struct checkpoint_report *report)
{
	uint32_t last = CATALOG_NO_FILE;
	uint64_t i;

	for (i = 0; i < c->catalog->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard_at(c->catalog, i);

		if (shard->file == CATALOG_NO_FILE || shard->file == last ||
		    checkpoint_pin(c, shard->file)->inode == 0 ||
		    pin_holds(checkpoint_pin(c, shard->file), shard))
			continue;
		last = shard->file;
		notes_add(&report->notes,
			  "%s: ends too early: some of what it should hold cannot be read",
			  file_path(c, last));
	}
}

/* ---- opening ------------------------------------------------------------- */

static int refuse(const struct checkpoint *c, struct checkpoint_report *report,
		  int error, const char *reason)
{
	return checkpoint_report_refuse(report, c->markers.files[0].name,
					error, reason);
}

static const struct replica *find_replica(const struct checkpoint *c,
					  uint64_t file, uint32_t rank)
{
	const struct replica *replica = placement_replicas(c->placement, file);
	uint32_t i;

	for (i = 0; i < c->placement->files[file].count; i++)
		if (replica[i].rank == rank)
			return &replica[i];
	return NULL;
}

/* What the headers say is true of the files that they were read from. */
static bool headers_are_current(const struct checkpoint *c)
{
	uint64_t i;

	for (i = 0; i < c->catalog->file_count; i++) {
		const struct metadata_file *marker =
			metadata_files_find(&c->markers, file_path(c, i));
		const struct replica *replica = !marker ? NULL :
			find_replica(c, i, marker->owner.rank);

		if (marker && (!replica ||
			       !pin_same_bytes(&marker->owner.pin,
					       &replica->pin)))
			return false;
	}
	return true;
}

static int place_files(struct checkpoint *c, struct checkpoint_report *report)
{
	struct store *store = store_of(c);
	uint64_t bad = 0;
	int error = store->place(c->folder, c->catalog, &c->placement, &bad);

	if (error)
		return refuse(c, report, error, strerror(-error));
	if (c->markers.kind == METADATA_SAFETENSORS && !headers_are_current(c))
		return -ESTALE;
	note_missing(c, report);
	note_newer(c, report);
	note_short(c, report);
	return 0;
}

static int make_source(struct checkpoint *c, struct decoded_cache *cache,
		       struct checkpoint_report *report)
{
	const struct shard_files files = {
		.path = c->folder->path, .catalog = c->catalog,
		.placement = c->placement, .stale = &c->stale,
	};
	bool decodes = c->catalog->transform_count > 0;

	c->files = source_file_create(c->placement, c->catalog, &c->stale);
	if (c->files && decodes)
		c->decoded = source_decoded_create(c->files, c->catalog,
						   cache);
	if (c->files && (c->decoded || !decodes))
		c->source = store_of(c)->wrap_source(store_of(c), &files,
						     checkpoint_local_source(c));
	return c->source ? 0 : refuse(c, report, -ENOMEM, "out of memory");
}

/*
 * Who makes catalogs reads the markers, and all others ask for what was made of
 * them. Where a marker cannot be read, since its rank does not answer, somebody
 * may still have what was made from it.
 */
static int find_catalog(struct checkpoint *c, const struct checkpoint *before,
			struct checkpoint_report *report)
{
	struct store *store = store_of(c);
	struct catalog_wanted wanted = {
		.path = c->folder->path, .signature = c->signature,
	};
	unsigned i;
	int error;

	if (before && before->signature == c->signature) {
		c->catalog = catalog_get(before->catalog);
		for (i = 0; i < c->markers.count; i++)
			c->markers.files[i].unused =
				before->markers.files[i].unused;
		return 0;
	}
	error = store->get_catalog(store, &wanted, &c->catalog);
	if (error != -ENODATA)
		return error;
	error = catalog_load(c->folder, &c->markers, c->file != NULL,
			     &c->catalog, report);
	if (error != -EIO)
		return error;
	wanted.kept = true;
	if (store->get_catalog(store, &wanted, &c->catalog))
		return error;
	memset(report, 0, sizeof(*report));
	return 0;
}

static int open_markers(struct checkpoint *c,
			const struct checkpoint_options *options,
			struct checkpoint_report *report)
{
	bool builder = store_of(c)->is_builder(store_of(c));
	int error;

	if (options->file) {
		c->file = strdup(options->file);
		if (!c->file)
			return -ENOMEM;
	}
	metadata_files_pin(&c->markers, c->folder);
	c->signature = metadata_files_signature(&c->markers);
	error = find_catalog(c, options->before, report);
	if (!error)
		error = place_files(c, report);
	if (!error)
		error = make_source(c, options->cache, report);
	/* Who has made it says what is odd. */
	if (!builder)
		report->notes.count = report->notes.dropped = 0;
	return error;
}

int checkpoint_open(struct store_folder *folder, struct metadata_files *markers,
		    const struct checkpoint_options *options,
		    struct checkpoint **ret_checkpoint,
		    struct checkpoint_report *report)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	int error;

	memset(report, 0, sizeof(*report));
	if (!c) {
		metadata_files_finish(markers);
		store_folder_put(folder);
		return fault_set(&report->fault, -ENOMEM, 0, "out of memory");
	}
	c->folder = folder;
	c->markers = *markers;
	*markers = (struct metadata_files){ .count = 0 };
	error = open_markers(c, options, report);
	if (error) {
		if (!report->fault.reason)
			fault_set(&report->fault, error, 0, strerror(-error));
		checkpoint_close(c);
		return error;
	}
	*ret_checkpoint = c;
	return 0;
}

int checkpoint_open_folder(struct store_folder *folder,
			   const struct checkpoint_options *options,
			   struct checkpoint **ret_checkpoint,
			   struct checkpoint_report *report)
{
	struct metadata_files markers;
	int error = metadata_files_read(folder, options->file, &markers);

	if (!error)
		return checkpoint_open(folder, &markers, options,
				       ret_checkpoint, report);
	store_folder_put(folder);
	memset(report, 0, sizeof(*report));
	return fault_set(&report->fault, error, 0, strerror(-error));
}

void checkpoint_close(struct checkpoint *checkpoint)
{
	if (!checkpoint)
		return;
	if (checkpoint->source &&
	    checkpoint->source != checkpoint_local_source(checkpoint))
		checkpoint->source->destroy(checkpoint->source);
	source_decoded_destroy(checkpoint->decoded);
	source_file_destroy(checkpoint->files);
	placement_destroy(checkpoint->placement);
	metadata_files_finish(&checkpoint->markers);
	catalog_put(checkpoint->catalog);
	store_folder_put(checkpoint->folder);
	free(checkpoint->file);
	free(checkpoint);
}

/* ---- reading ------------------------------------------------------------- */

struct source *checkpoint_local_source(const struct checkpoint *checkpoint)
{
	return checkpoint->decoded ?
	       source_decoded_source(checkpoint->decoded) :
	       source_file_source(checkpoint->files);
}

struct source *checkpoint_source(const struct checkpoint *checkpoint)
{
	return checkpoint->source;
}

bool checkpoint_is_stale(const struct checkpoint *checkpoint)
{
	return atomic_load(&checkpoint->stale);
}

bool checkpoint_has(const struct checkpoint *checkpoint,
		    const struct catalog_entry *entry)
{
	const struct catalog *catalog = checkpoint->catalog;
	uint64_t i;

	for (i = 0; i < entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(catalog, entry, i);
		const struct pin *pin =
			checkpoint_pin(checkpoint, shard->file);
		const char *chain;
		size_t size;

		if (pin->inode == 0 || !pin_holds(pin, shard))
			return false;
		if (!(shard->flags & CATALOG_TRANSFORMED))
			continue;
		chain = catalog_transforms(catalog, shard, &size);
		if (decode_check(chain, size, NULL))
			return false;
	}
	return !(entry->flags & CATALOG_HOLES);
}

/* Is it in files of this machine, or nowhere? */
static bool is_here(const struct checkpoint *c,
		    const struct catalog_shard *shard)
{
	return c->placement->files[shard->file].count == 0 ||
	       placement_local(c->placement, shard->file);
}

/* An item of a rank whose store is not here. */
static int use_remote(const struct checkpoint *c,
		      const struct catalog_shard *shard,
		      int (*use)(void *context, const struct input *input),
		      void *context)
{
	struct stored_file *file;
	struct input input;
	int error;

	if (!pin_holds(checkpoint_pin(c, shard->file), shard))
		return -EIO;
	if (shard->size > LIMIT_OBJECT_MEMORY)
		return -EOPNOTSUPP;
	error = store_of(c)->open_in(c->folder, file_path(c, shard->file),
				     &file);
	if (error)
		return error;
	input = stored_file_input(file, NULL);
	input.base = shard->offset;
	input.size = shard->size;
	error = shard->flags & CATALOG_TRANSFORMED ?
		decode_use(&input, c->catalog, shard, use, context) :
		use(context, &input);
	file->close(file);
	return error;
}

int checkpoint_item(const struct checkpoint *checkpoint,
		    const struct catalog_shard *shard,
		    int (*use)(void *context, const struct input *input),
		    void *context)
{
	if (!is_here(checkpoint, shard))
		return use_remote(checkpoint, shard, use, context);
	return checkpoint->decoded ?
	       source_decoded_item(checkpoint->decoded, shard, use, context) :
	       source_file_item(checkpoint->files, shard, use, context);
}

/* ---- keeping ------------------------------------------------------------- */

void checkpoint_hold_files(const struct checkpoint *checkpoint, unsigned rank,
			   struct array *out)
{
	uint32_t i;

	for (i = 0; i < checkpoint->catalog->file_count; i++) {
		const struct replica *replica =
			placement_here(checkpoint->placement, i);

		if (replica && replica->rank == rank &&
		    source_file_hold(checkpoint->files, i, false) == 0 &&
		    array_append(out, &i, sizeof(i)))
			source_file_release(checkpoint->files, i);
	}
}

void checkpoint_release_files(const struct checkpoint *checkpoint,
			      const struct array *held)
{
	const uint32_t *files = (const void *)held->data;
	size_t i;

	for (i = 0; i < held->size / sizeof(*files); i++)
		source_file_release(checkpoint->files, files[i]);
}

void checkpoint_close_idle(const struct checkpoint *checkpoint)
{
	source_file_close_idle(checkpoint->files);
}

/* ---- looking again ------------------------------------------------------- */

static bool same_marker(const struct metadata_file *before,
			const struct metadata_file *now,
			struct store_folder *folder)
{
	struct replica owner = now->owner;
	int error = 0;

	if (before->unused)
		return true;
	if (owner.pin.inode == 0)
		error = folder->store->resolve(folder, now->name, &owner);
	if (error)
		return !io_is_missing(error);
	return owner.rank == before->owner.rank &&
	       pin_equal(&owner.pin, &before->owner.pin);
}

static bool same_file(const struct checkpoint *c, struct store_folder *folder,
		      uint64_t index)
{
	const struct replica *before;
	struct replica owner;
	int error = folder->store->resolve(folder, file_path(c, index),
					   &owner);

	if (error)
		return !io_is_missing(error) ||
		       c->placement->files[index].count == 0;
	before = find_replica(c, index, owner.rank);
	return before && c->placement->owners[index] == owner.rank &&
	       pin_equal(&owner.pin, &before->pin);
}

/* Markers are looked at each time; safetensors files, which are markers and
 * data and may be many, in turn with @cursor. */
bool checkpoint_is_current(const struct checkpoint *checkpoint,
			   struct store_folder *folder,
			   const struct metadata_files *markers,
			   uint64_t *cursor)
{
	const struct metadata_file *before = checkpoint->markers.files;
	uint64_t first = metadata_files_safetensors(markers), i;
	uint64_t count = first ? first : checkpoint->catalog->file_count;
	uint64_t looks = count < LOOKS_MAX ? count : LOOKS_MAX;

	if (checkpoint_is_stale(checkpoint) ||
	    !metadata_files_equal(markers, &checkpoint->markers))
		return false;
	for (i = first; i < markers->count; i++)
		if (!same_marker(&before[i], &markers->files[i], folder))
			return false;
	for (i = 0; i < looks; i++) {
		uint64_t index = (*cursor + i) % count;

		if (first ? !same_marker(&before[index],
					 &markers->files[index], folder) :
			    !same_file(checkpoint, folder, index))
			return false;
	}
	*cursor += looks;
	return true;
}

/* A file of another rank, by what is known of it. */
static void find_change(struct checkpoint *c, struct store_folder *folder,
			uint64_t file)
{
	const struct replica *before;
	struct replica now;

	if (folder->store->resolve(folder, file_path(c, file), &now))
		return;
	before = find_replica(c, file, now.rank);
	if (before && pin_same_file(&before->pin, &now.pin) &&
	    !pin_same_bytes(&before->pin, &now.pin))
		atomic_store(&c->stale, true);
}

void checkpoint_find_changes(struct checkpoint *checkpoint)
{
	uint32_t i;

	for (i = 0; i < checkpoint->catalog->file_count &&
		    !checkpoint_is_stale(checkpoint); i++)
		if (placement_local(checkpoint->placement, i))
			source_file_check(checkpoint->files, i, true);
		else
			find_change(checkpoint, checkpoint->folder, i);
}
