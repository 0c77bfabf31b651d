/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/checkpoint/checkpoint.h"

#include "shard/base/limits.h"
#include "shard/checkpoint/catalog_load.h"
#include "shard/codec/decode.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Data files that are this much younger than the marker were hardly copied
 * together with it: an overwrite began, and did not end. */
static const int64_t overwrite_delay_ns = INT64_C(600) * 1000000000;

uint64_t checkpoint_signature(int folder)
{
	return metadata_files_signature(folder);
}

/* ---- opening ------------------------------------------------------------- */

static const char *file_path(const struct checkpoint *c, uint64_t index)
{
	return catalog_text(c->catalog, catalog_file(c->catalog, index)->path);
}

static struct pin find_pin(const struct checkpoint *c, uint64_t index,
			   int *ret_error)
{
	struct stat status;

	*ret_error = io_stat(c->folder, file_path(c, index), &status);
	return *ret_error ? (struct pin){ .inode = 0 } :
			    pin_from_stat(&status);
}

static int refuse(const struct checkpoint *c, struct checkpoint_report *report,
		  int error, const char *reason)
{
	return catalog_load_refuse(report, c->markers.markers[0].name, error,
				   reason);
}

static void note_newer(const struct checkpoint *c,
		       struct checkpoint_report *report)
{
	const struct metadata_file *marker = &c->markers.markers[0];
	uint64_t i, newer = 0;

	for (i = 0; i < c->catalog->file_count; i++)
		newer += c->pins[i].mtime >
			 marker->pin.mtime + overwrite_delay_ns;
	if (newer > 0)
		notes_add(&report->notes,
			  "%s: %" PRIu64 " of the files are newer by more than 10 minutes: an overwrite that was not finished?",
			  marker->name, newer);
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
		    c->pins[shard->file].inode == 0 ||
		    pin_holds(&c->pins[shard->file], shard))
			continue;
		last = shard->file;
		notes_add(&report->notes,
			  "%s: ends too early: some of what it should hold cannot be read",
			  file_path(c, last));
	}
}

static int pin_data(struct checkpoint *c, struct checkpoint_report *report)
{
	uint64_t i;
	int error;

	for (i = 0; i < c->catalog->file_count; i++) {
		c->pins[i] = find_pin(c, i, &error);
		if (error && !io_is_missing(error))
			return refuse(c, report, error, strerror(-error));
		if (error)
			notes_add(&report->notes,
				  "%s: what it holds cannot be read: %s",
				  file_path(c, i), strerror(-error));
	}
	note_newer(c, report);
	note_short(c, report);
	return 0;
}

/* What the headers say is true of the files that they were read from. */
static void pin_headers(struct checkpoint *c)
{
	uint64_t i;

	for (i = 0; i < c->catalog->file_count; i++)
		c->pins[i] =
			metadata_files_find(&c->markers, file_path(c, i))->pin;
}

/* Where each file is in the union. */
static int pin_spread(struct checkpoint *c, struct checkpoint_report *report)
{
	struct merged *merged = NULL;
	uint64_t count = c->catalog->file_count, i;
	int error = 0;

	c->spread->ranks = calloc(count + 1, sizeof(*c->spread->ranks));
	if (!c->spread->ranks)
		return refuse(c, report, -ENOMEM, "out of memory");
	for (i = 0; i < count && !error; i++) {
		unsigned owner = 0, near = 0;

		error = spread_find(c->spread, file_path(c, i), &merged,
				    &c->pins[i], &owner, &near);
		if (io_is_missing(error)) {
			notes_add(&report->notes,
				  "%s: what it holds cannot be read: %s",
				  file_path(c, i), strerror(-error));
			error = 0;
		}
		c->spread->ranks[i] = near;
		catalog_set_rank(c->catalog, i, owner);
	}
	merged_put(merged);
	if (error)
		return refuse(c, report, error, strerror(-error));
	note_newer(c, report);
	note_short(c, report);
	return 0;
}

static int pin_files(struct checkpoint *c, struct checkpoint_report *report)
{
	c->pins = calloc(c->catalog->file_count + 1, sizeof(*c->pins));
	if (!c->pins)
		return refuse(c, report, -ENOMEM, "out of memory");
	if (c->spread)
		return pin_spread(c, report);
	if (c->markers.kind != METADATA_SAFETENSORS)
		return pin_data(c, report);
	pin_headers(c);
	return 0;
}

static int make_source(struct checkpoint *c, struct decoded_cache *cache,
		       struct checkpoint_report *report)
{
	c->files = c->spread ?
		   source_file_create_spread(c->spread->folders,
					     c->spread->ranks, c->catalog,
					     c->pins) :
		   source_file_create(c->folder, c->catalog, c->pins);
	if (c->files && c->catalog->transform_count > 0)
		c->decoded = source_decoded_create(c->files, c->catalog,
						   cache);
	if (!c->files || (c->catalog->transform_count > 0 && !c->decoded))
		return refuse(c, report, -ENOMEM, "out of memory");
	return 0;
}

static int make_remote(struct checkpoint *c, struct checkpoint_report *report)
{
	const struct peer_files files = {
		.path = c->spread->path, .catalog = c->catalog,
		.ranks = c->spread->ranks, .pins = c->pins,
		.stale = &c->spread->stale,
	};

	c->remote = c->spread->peers->source(c->spread->peers, &files,
					     checkpoint_local_source(c));
	return c->remote ? 0 : refuse(c, report, -ENOMEM, "out of memory");
}

static int list_markers(struct checkpoint *c, int folder, const char *file)
{
	c->folder = fcntl(folder, F_DUPFD_CLOEXEC, 0);
	if (c->folder < 0)
		return -errno;
	c->file = file ? strdup(file) : NULL;
	if (file && !c->file)
		return -ENOMEM;
	return metadata_files_read(folder, file, &c->markers);
}

int checkpoint_open(int folder, const struct checkpoint_options *options,
		    struct checkpoint **ret_checkpoint,
		    struct checkpoint_report *report)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	int error;

	memset(report, 0, sizeof(*report));
	if (!c)
		return fault_set(&report->fault, -ENOMEM, 0, "out of memory");
	error = list_markers(c, folder, options->file);
	if (!error)
		error = catalog_load_make_catalog(c, report);
	if (!error)
		error = pin_files(c, report);
	if (!error)
		error = make_source(c, options->cache, report);
	if (error) {
		if (!report->fault.reason)
			fault_set(&report->fault, error, 0, strerror(-error));
		checkpoint_close(c);
		return error;
	}
	*ret_checkpoint = c;
	return 0;
}

/* Not shared: whose the files are is written into it. */
static int copy_catalog(const struct checkpoint *from, struct checkpoint *c)
{
	c->catalog = catalog_create(from->catalog->size);
	if (!c->catalog)
		return -ENOMEM;
	memcpy(c->catalog, from->catalog, from->catalog->size);
	return 0;
}

/* The builder makes the catalog, and all others ask for it. Where a marker
 * cannot be read, since its rank does not answer, somebody may still have what
 * was made from it. */
static int find_catalog(struct checkpoint *c, const struct checkpoint *before,
			struct checkpoint_report *report)
{
	struct peers *peers = c->spread->peers;
	struct catalog_part part = {
		.path = c->spread->path, .signature = c->spread->signature,
	};
	int error;

	if (before && before->spread->signature == part.signature)
		return copy_catalog(before, c);
	if (!peers->is_builder(peers))
		return peers->catalog(peers, &part, &c->catalog);
	error = catalog_load_make_catalog(c, report);
	if (error != -EIO)
		return error;
	part.kept = true;
	if (peers->catalog(peers, &part, &c->catalog))
		return error;
	memset(report, 0, sizeof(*report));
	return 0;
}

static int open_spread(struct checkpoint *c,
		       const struct checkpoint_options *options,
		       struct checkpoint_report *report)
{
	bool builder = c->spread->peers->is_builder(c->spread->peers);
	int error = find_catalog(c, options->before, report);

	if (!error)
		error = pin_files(c, report);
	if (!error)
		error = make_source(c, options->cache, report);
	if (!error)
		error = make_remote(c, report);
	if (!builder)
		report->notes.count = report->notes.dropped = 0;
	return error;
}

int checkpoint_open_spread(struct merger *merger, struct peers *peers,
			   const char *path,
			   const struct checkpoint_options *options,
			   struct checkpoint **ret_checkpoint,
			   struct checkpoint_report *report)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	int error = -ENOMEM;

	memset(report, 0, sizeof(*report));
	if (!c)
		return fault_set(&report->fault, -ENOMEM, 0, "out of memory");
	c->folder = -1;
	c->spread = spread_create(merger, peers, path);
	if (c->spread)
		error = spread_markers(merger, path, false, &c->markers,
				       &c->spread->signature, &c->status);
	if (!error)
		error = open_spread(c, options, report);
	if (error) {
		if (!report->fault.reason)
			fault_set(&report->fault, error, 0, strerror(-error));
		checkpoint_close(c);
		return error;
	}
	*ret_checkpoint = c;
	return 0;
}

uint64_t checkpoint_spread_signature(struct merger *merger, const char *path,
				     bool fresh)
{
	struct metadata_files list;
	struct stat status;
	uint64_t signature;

	if (spread_markers(merger, path, fresh, &list, &signature, &status))
		return 0;
	metadata_files_finish(&list);
	return signature;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
	if (!checkpoint)
		return;
	if (checkpoint->remote)
		checkpoint->remote->destroy(checkpoint->remote);
	source_decoded_destroy(checkpoint->decoded);
	source_file_destroy(checkpoint->files);
	spread_destroy(checkpoint->spread);
	metadata_files_finish(&checkpoint->markers);
	free(checkpoint->file);
	free(checkpoint->pins);
	catalog_put(checkpoint->catalog);
	if (checkpoint->folder >= 0)
		close(checkpoint->folder);
	free(checkpoint);
}

struct source *checkpoint_local_source(const struct checkpoint *checkpoint)
{
	return checkpoint->decoded ?
	       source_decoded_source(checkpoint->decoded) :
	       source_file_source(checkpoint->files);
}

struct source *checkpoint_source(const struct checkpoint *checkpoint)
{
	return checkpoint->remote ? checkpoint->remote :
				    checkpoint_local_source(checkpoint);
}

bool checkpoint_is_stale(const struct checkpoint *checkpoint)
{
	return source_file_is_stale(checkpoint->files) ||
	       (checkpoint->spread &&
		atomic_load(&checkpoint->spread->stale));
}

bool checkpoint_has(const struct checkpoint *checkpoint,
		    const struct catalog_entry *entry)
{
	const struct catalog *catalog = checkpoint->catalog;
	uint64_t i;

	for (i = 0; i < entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(catalog, entry, i);
		const char *chain;
		size_t size;

		if (checkpoint->pins[shard->file].inode == 0 ||
		    !pin_holds(&checkpoint->pins[shard->file], shard))
			return false;
		if (!(shard->flags & CATALOG_TRANSFORMED))
			continue;
		chain = catalog_transforms(catalog, shard, &size);
		if (decode_check(chain, size, NULL))
			return false;
	}
	return !(entry->flags & CATALOG_HOLES);
}

static bool is_elsewhere(const struct checkpoint *c,
			 const struct catalog_shard *shard)
{
	return c->spread && c->pins[shard->file].inode != 0 &&
	       c->spread->folders[c->spread->ranks[shard->file]] < 0;
}

/* An item of a rank whose store is not here is fetched as a whole. */
static int use_fetched(const struct checkpoint *c,
		       const struct catalog_shard *shard,
		       int (*use)(void *context, const struct input *input),
		       void *context)
{
	const struct pin *pin = &c->pins[shard->file];
	struct input input;
	int fd, error;

	if (!pin_holds(pin, shard))
		return -EIO;
	if (shard->size > LIMIT_OBJECT_MEMORY)
		return -EOPNOTSUPP;
	error = spread_fetch(c->spread, file_path(c, shard->file),
			     c->spread->ranks[shard->file], pin,
			     shard->offset, shard->size, &fd);
	if (error == -ESTALE)
		atomic_store(&c->spread->stale, true);
	if (error)
		return error;
	input = input_file(fd, 0, shard->size);
	error = shard->flags & CATALOG_TRANSFORMED ?
		decode_use(&input, c->catalog, shard, use, context) :
		use(context, &input);
	close(fd);
	return error;
}

int checkpoint_item(const struct checkpoint *checkpoint,
		    const struct catalog_shard *shard,
		    int (*use)(void *context, const struct input *input),
		    void *context)
{
	if (is_elsewhere(checkpoint, shard))
		return use_fetched(checkpoint, shard, use, context);
	return checkpoint->decoded ?
	       source_decoded_item(checkpoint->decoded, shard, use, context) :
	       source_file_item(checkpoint->files, shard, use, context);
}

/* ---- checking ------------------------------------------------------------ */

static bool same_marker(const struct checkpoint *c,
			const struct metadata_file *marker)
{
	struct stat status;
	struct pin pin;
	int error;

	/* One that was of no use. */
	if (marker->pin.inode == 0)
		return true;
	error = io_stat(c->folder, marker->name, &status);
	if (error)
		return !io_is_missing(error);
	pin = pin_from_stat(&status);
	return pin_equal(&pin, &marker->pin);
}

static bool same_names(const struct checkpoint *c)
{
	struct metadata_files found;
	int error = metadata_files_read(c->folder, c->file, &found);
	bool same;

	if (error)
		return error != -ENOENT;
	same = metadata_files_equal(&found, &c->markers);
	metadata_files_finish(&found);
	return same;
}

static bool same_file(const struct checkpoint *c, uint64_t index)
{
	int error;
	struct pin pin = find_pin(c, index, &error);

	return (error && !io_is_missing(error)) ||
	       pin_equal(&pin, &c->pins[index]);
}

static bool same_spread_file(const struct checkpoint *c, uint64_t index,
			     struct merged **merged)
{
	struct pin pin = { .inode = 0 };
	unsigned owner, near = c->spread->ranks[index];
	int error = spread_find(c->spread, file_path(c, index), merged, &pin,
				&owner, &near);

	return (error && !io_is_missing(error)) ||
	       (pin_equal(&pin, &c->pins[index]) &&
		near == c->spread->ranks[index]);
}

static bool is_spread_current(const struct checkpoint *c, uint64_t *cursor)
{
	uint64_t count = c->catalog->file_count, i;
	uint64_t looks = count < 4096 ? count : 4096;
	struct merged *merged = NULL;
	bool same = true;

	if (checkpoint_is_stale(c) ||
	    checkpoint_spread_signature(c->spread->merger, c->spread->path,
					false) != c->spread->signature)
		return false;
	for (i = 0; i < looks && same; i++)
		same = same_spread_file(c, (*cursor + i) % count, &merged);
	*cursor += looks;
	merged_put(merged);
	return same;
}

/* Markers are looked at each time; safetensors files, which are markers and
 * data and may be many, in turn with @cursor. */
bool checkpoint_is_current(const struct checkpoint *checkpoint,
			   uint64_t *cursor)
{
	const struct metadata_files *list = &checkpoint->markers;
	uint64_t first = metadata_files_files(list), i;
	uint64_t count = first ? first : checkpoint->catalog->file_count;
	uint64_t looks = count < 4096 ? count : 4096;

	if (checkpoint->spread)
		return is_spread_current(checkpoint, cursor);
	if (checkpoint_is_stale(checkpoint) || !same_names(checkpoint))
		return false;
	for (i = first; i < list->count; i++)
		if (!same_marker(checkpoint, &list->markers[i]))
			return false;
	for (i = 0; i < looks; i++) {
		uint64_t index = (*cursor + i) % count;

		if (first ? !same_marker(checkpoint, &list->markers[index]) :
			    !same_file(checkpoint, index))
			return false;
	}
	*cursor += looks;
	return true;
}
