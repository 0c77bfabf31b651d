/* SPDX-License-Identifier: Apache-2.0 */
#include "support/flips.h"
#include "support/opening.h"

#include "support/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- checkpoints --------------------------------------------------------- */

static unsigned char *read_all(int folder, const char *name, size_t *ret_size)
{
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
	unsigned char *bytes;
	struct stat status;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &status), 0);
	bytes = malloc((size_t)status.st_size + 1);
	assert_non_null(bytes);
	assert_int_equal(io_read(fd, bytes, (size_t)status.st_size, 0), 0);
	close(fd);
	*ret_size = (size_t)status.st_size;
	return bytes;
}

static void copy_files(const struct test_folder *to, const char *fixture)
{
	DIR *stream = opendir(fixture);
	struct dirent *entry;

	if (!stream)
		fail_msg("%s: %s", fixture, strerror(errno));
	while ((entry = readdir(stream))) {
		size_t size;
		unsigned char *bytes;

		if (entry->d_type != DT_REG)
			continue;
		bytes = read_all(dirfd(stream), entry->d_name, &size);
		folder_write(to, entry->d_name, bytes, size);
		free(bytes);
	}
	closedir(stream);
}

/* ---- one look ------------------------------------------------------------ */

struct counts {
	unsigned faults, notes;
};

static void count_fault(void *context, const struct verify_fault *fault)
{
	assert_non_null(fault->reason);
	assert_non_null(fault->detail);
	((struct counts *)context)->faults++;
}

static void count_note(void *context, const struct verify_note *note)
{
	assert_non_null(note->reason);
	((struct counts *)context)->notes++;
}

static void no_progress(void *context, uint64_t size)
{
	(void)context;
	(void)size;
}

static struct counts verify_all(const struct copy *copy,
				const struct checkpoint *checkpoint)
{
	struct counts counts = { 0, 0 };
	const struct verify_sink sink = {
		count_fault, count_note, no_progress, &counts
	};
	struct verify_summary summary;
	struct verify *verify;
	uint64_t i;

	assert_int_equal(verify_create(checkpoint, false, &sink, &verify), 0);
	for (i = 0; i < verify_unit_count(verify); i++)
		assert_int_equal(verify_unit(verify, copy->buffer, i), 0);
	verify_finish(verify, &summary);
	assert_int_equal(summary.fault_count, counts.faults);
	verify_destroy(verify);
	return counts;
}

struct checkpoint *copy_open(const struct copy *copy)
{
	const struct checkpoint_options options = { .cache = copy->cache };
	static struct checkpoint_report report;
	struct checkpoint *checkpoint;
	int error;

	memset(&report, 0, sizeof(report));
	error = opening_checkpoint(copy->folder.fd, &options, &checkpoint,
				&report);
	if (!error)
		return checkpoint;
	assert_int_not_equal(error, -ENOENT);
	assert_int_not_equal(error, -ESTALE);
	assert_non_null(report.fault.reason);
	return NULL;
}

/* ---- what must not change without notice --------------------------------- */

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void put_box(FILE *out, const struct box *box)
{
	unsigned i;

	for (i = 0; i < box->ndim; i++)
		fprintf(out, " %" PRIu64 "+%" PRIu64, box->offset[i],
			box->size[i]);
}

static void put_entry(FILE *out, const struct catalog *catalog,
		      const struct catalog_entry *entry, bool typed)
{
	struct box box;
	uint64_t i;

	catalog_shape(catalog, entry, &box);
	fprintf(out, "type %d flags %d shape", typed ? entry->dtype : 0,
		entry->flags);
	put_box(out, &box);
	for (i = 0; i < entry->shard_count; i++) {
		const struct catalog_shard *shard =
			catalog_shard(catalog, entry, i);

		catalog_box(catalog, entry, i, &box);
		fprintf(out, "; %s %" PRIu64 " %" PRIu64 " %u",
			catalog_text(catalog, catalog_file(catalog,
							   shard->file)->path),
			shard->offset, shard->size, shard->flags);
		put_box(out, &box);
	}
}

/* All but the names: type, boxes and places of every entry, sorted. */
static char *describe(const struct catalog *catalog, bool typed)
{
	uint64_t count = catalog->tensor_count + catalog->object_count, i;
	char **lines = calloc(count + 1, sizeof(*lines)), *text;
	size_t size;
	FILE *out;

	assert_non_null(lines);
	for (i = 0; i < count; i++) {
		out = open_memstream(&lines[i], &size);
		assert_non_null(out);
		put_entry(out, catalog, catalog_entry(catalog, i), typed);
		fclose(out);
	}
	qsort(lines, count, sizeof(*lines), compare_lines);
	out = open_memstream(&text, &size);
	assert_non_null(out);
	for (i = 0; i < count; i++) {
		fprintf(out, "%s\n", lines[i]);
		free(lines[i]);
	}
	fclose(out);
	free(lines);
	return text;
}

/* ---- turning bits over --------------------------------------------------- */

/* Is each line of @text one of the @lines? */
static bool is_part(char *text, const char *lines)
{
	char *line, *next;
	bool found = true;

	for (line = text; *line && found; line = next) {
		char *end = strchr(line, '\n');
		char last = end[1];

		next = end + 1;
		*next = '\0';
		found = strstr(lines, line);
		*next = last;
	}
	return found;
}

/* What became of a checkpoint of which verify found nothing wrong. */
static enum outcome compare(const struct copy *copy,
			    const struct catalog *catalog)
{
	char *description = describe(catalog, true);
	char *untyped = describe(catalog, false);
	enum outcome outcome = CHANGED;

	if (strcmp(description, copy->description) == 0)
		outcome = SAME;
	else if (strcmp(untyped, copy->untyped) == 0)
		outcome = RETYPED;
	else if (strlen(description) < strlen(copy->description) &&
		 is_part(description, copy->description))
		outcome = LOST;
	free(description);
	free(untyped);
	return outcome;
}

static enum outcome look(struct copy *copy)
{
	struct checkpoint *checkpoint;
	struct counts counts;
	enum outcome outcome;

	/* The clock of files is too coarse for a cache that lasts. */
	decoded_cache_destroy(copy->cache);
	copy->cache = decoded_cache_create(MIB);
	assert_non_null(copy->cache);
	checkpoint = copy_open(copy);
	if (!checkpoint)
		return REFUSED;
	counts = verify_all(copy, checkpoint);
	if (counts.faults)
		outcome = FAULT;
	else if (counts.notes > copy->note_count)
		outcome = NOTED;
	else
		outcome = compare(copy, checkpoint->catalog);
	opening_close(checkpoint);
	return outcome;
}

void copy_make(struct copy *copy, const char *fixture, const char *file)
{
	struct checkpoint *checkpoint;
	struct counts counts;
	char path[512];

	memset(copy, 0, sizeof(*copy));
	folder_make(&copy->folder);
	snprintf(path, sizeof(path), "%s/%s", FIXTURES, fixture);
	copy_files(&copy->folder, path);
	snprintf(copy->file, sizeof(copy->file), "%s", file);
	copy->bytes = read_all(copy->folder.fd, file, &copy->size);
	copy->cache = decoded_cache_create(MIB);
	copy->buffer = verify_buffer_create();
	assert_true(copy->cache && copy->buffer);
	checkpoint = copy_open(copy);
	assert_non_null(checkpoint);
	counts = verify_all(copy, checkpoint);
	assert_int_equal(counts.faults, 0);
	copy->note_count = counts.notes;
	copy->description = describe(checkpoint->catalog, true);
	copy->untyped = describe(checkpoint->catalog, false);
	opening_close(checkpoint);
}

void copy_free(struct copy *copy)
{
	free(copy->description);
	free(copy->untyped);
	free(copy->bytes);
	verify_buffer_destroy(copy->buffer);
	decoded_cache_destroy(copy->cache);
	folder_remove(&copy->folder);
}

enum outcome flip_bit(struct copy *copy, unsigned bit)
{
	unsigned char byte = copy->bytes[bit / 8];
	enum outcome outcome;

	folder_poke(&copy->folder, copy->file, bit / 8,
		    byte ^ (unsigned char)(1 << bit % 8));
	outcome = look(copy);
	folder_poke(&copy->folder, copy->file, bit / 8, byte);
	return outcome;
}
