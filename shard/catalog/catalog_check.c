/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the outside in, so that each step stands on the one before: the header
 * says where the sections lie, the hash that they are what was sent, then come
 * the texts of files and chains, the entries with their shards
 * (catalog_check_entry.c), and the tables of names, which are seeded and
 * therefore outside of the hash.
 *
 * A table is checked without looking up a name. With open addressing a name
 * is found if the slots from where it belongs to where it stands are all in
 * use, and its equal is not among them: both can be seen in one walk along the
 * runs of slots in use. Two equal hashes are refused without a look at the
 * names; chance makes them once in 10^9 catalogs of 100 000 names. No value
 * can then be in a table twice, and their number says that none is missing.
 */
#include "shard/catalog/catalog_check.h"

#include "shard/base/hash.h"
#include "shard/base/name.h"
#include "shard/catalog/catalog_check_entry.h"
#include "shard/catalog/catalog_layout.h"

#include <errno.h>
#include <string.h>

int catalog_checker_refuse(const struct catalog_checker *checker,
			   const void *where, const char *reason)
{
	uint64_t offset = (uint64_t)((const char *)where -
				     (const char *)checker->catalog);

	return fault_set(checker->fault, -EBADMSG, offset, reason);
}

bool catalog_checker_text(struct catalog_checker *checker, uint64_t offset,
			  uint64_t size)
{
	uint64_t begin = checker->catalog->names;
	uint64_t end = checker->catalog->tensor_slots;

	/* No text is at the offset 0 of the names. */
	if (offset <= begin || offset > end || size > end - offset ||
	    size > end - begin - checker->text_size)
		return false;
	checker->text_size += size;
	return true;
}

/* ---- header -------------------------------------------------------------- */

static bool has_good_counts(const struct catalog *catalog)
{
	return catalog->tensor_count <= LIMIT_COUNT &&
	       catalog->object_count <= LIMIT_COUNT - catalog->tensor_count &&
	       catalog->shard_count <= LIMIT_COUNT &&
	       catalog->file_count <= LIMIT_COUNT &&
	       catalog->transform_count <= LIMIT_TRANSFORMS;
}

/* The only sizes that are not known from counts are those of two sections. */
static int check_layout(const struct catalog_checker *checker)
{
	const struct catalog *catalog = checker->catalog;
	struct catalog expected = *catalog;
	const char *x = (const char *)catalog, *y = (const char *)&expected;
	size_t i;

	if (catalog->dims > catalog->names ||
	    catalog->names > catalog->tensor_slots ||
	    catalog->tensor_slots > catalog->size)
		return catalog_checker_refuse(checker, &catalog->entries,
					      "sections are not in order");
	catalog_layout(&expected, catalog->names - catalog->dims,
		       catalog->tensor_slots - catalog->names);
	for (i = 0; i < sizeof(expected); i += sizeof(uint64_t))
		if (memcmp(x + i, y + i, sizeof(uint64_t)) != 0)
			return catalog_checker_refuse(checker, x + i,
				"header does not fit to its counts");
	return 0;
}

static int check_header(const struct catalog_checker *checker, uint64_t size)
{
	const struct catalog *catalog = checker->catalog;
	uint64_t hash[2];
	int error;

	if (size < sizeof(*catalog))
		return fault_set(checker->fault, -EBADMSG, size,
				 "too short for a catalog");
	if (catalog->size != size)
		return catalog_checker_refuse(checker, &catalog->size,
					      "catalog of another size");
	if (!has_good_counts(catalog))
		return catalog_checker_refuse(checker, &catalog->tensor_count,
					      "too many things in a catalog");
	if (catalog->origin.format > CATALOG_SAFETENSORS_SHARDED)
		return catalog_checker_refuse(checker, &catalog->origin,
					      "unknown format of a checkpoint");
	error = check_layout(checker);
	if (error)
		return error;
	catalog_hash(catalog, hash);
	if (memcmp(hash, catalog->hash, sizeof(hash)) != 0)
		return catalog_checker_refuse(checker, catalog->hash,
					      "hash of other content");
	return 0;
}

/* ---- files --------------------------------------------------------------- */

/* Down from the folder. What else is odd the kernel may judge. */
static bool is_relative(const char *path, size_t size)
{
	const char *part = path, *end = path + size;

	if (size == 0 || path[0] == '/' || memchr(path, '\0', size))
		return false;
	while (part < end) {
		const char *slash = memchr(part, '/', (size_t)(end - part));
		size_t part_size = (size_t)((slash ? slash : end) - part);

		if (part_size == 2 && part[0] == '.' && part[1] == '.')
			return false;
		part += part_size + 1;
	}
	return true;
}

static int check_file(struct catalog_checker *checker,
		      const struct catalog_file *file)
{
	const char *path;

	if (file->reserved != 0)
		return catalog_checker_refuse(checker, file,
					      "reserved bytes of a file");
	if (file->path_size > LIMIT_PATH_SIZE ||
	    !catalog_checker_text(checker, file->path,
				  (uint64_t)file->path_size + 1))
		return catalog_checker_refuse(checker, file,
					      "path beyond the names");
	path = catalog_text(checker->catalog, file->path);
	if (path[file->path_size] != '\0' ||
	    !is_relative(path, file->path_size))
		return catalog_checker_refuse(checker, file,
			"path of a file is not a plain relative path");
	return 0;
}

static int check_files(struct catalog_checker *checker)
{
	uint64_t i;
	int error = 0;

	for (i = 0; i < checker->catalog->file_count && !error; i++)
		error = check_file(checker, catalog_file(checker->catalog, i));
	return error;
}

/* ---- chains of stream extensions ----------------------------------------- */

/* Lines, as many and as long as may be. */
static bool is_chain(const char *text, uint64_t size)
{
	uint64_t begin = 0, i;
	unsigned depth = 0;

	for (i = 0; i < size; i++) {
		if (text[i] != '\n') {
			if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
				return false;
			continue;
		}
		if (i - begin > LIMIT_TRANSFORM_NAME ||
		    ++depth > LIMIT_TRANSFORM_DEPTH)
			return false;
		begin = i + 1;
	}
	return size > 0 && begin == size;
}

static int check_transforms(struct catalog_checker *checker)
{
	const struct catalog *catalog = checker->catalog;
	const struct catalog_transform *transform =
		(const void *)catalog_text(catalog, catalog->transforms);
	uint64_t i;

	for (i = 0; i < catalog->transform_count; i++, transform++) {
		if (!catalog_checker_text(checker, transform->text,
					  transform->text_size))
			return catalog_checker_refuse(checker, transform,
				"stream extensions beyond the names");
		if (!is_chain(catalog_text(catalog, transform->text),
			      transform->text_size))
			return catalog_checker_refuse(checker, transform,
				"bad stream extensions");
	}
	return 0;
}

/* ---- tables of names ----------------------------------------------------- */

/* On the way around a table, and the slots in use one behind the other up to
 * the one at hand. */
struct slot_walk {
	struct hash_table table;
	uint64_t first, count;		/* entries that it has to find */
	unsigned run;			/* slots */
	uint64_t hash[LIMIT_SLOT_RUN];	/* of each of them */
};

/* Slot @at, which is in use. NULL, or what is wrong. */
static const char *check_slot(const struct catalog *catalog,
			      struct slot_walk *walk, uint64_t at)
{
	const struct hash_table *table = &walk->table;
	uint64_t index = (uint64_t)table->slots[at] - 1, hash;
	unsigned i;

	/* One in front of the first wraps around, and is too large. */
	if (index - walk->first >= walk->count)
		return "slot of an entry that is not there";
	if (walk->run == LIMIT_SLOT_RUN)
		return "names of too similar hashes";
	hash = table->keys->hash(catalog, (uint32_t)index);
	if (((at - hash) & (table->slot_count - 1)) > walk->run)
		return "slot where its name does not belong";
	for (i = 0; i < walk->run; i++)
		if (walk->hash[i] == hash)
			return "two entries of one name";
	walk->hash[walk->run++] = hash;
	return NULL;
}

static int check_table(const struct catalog_checker *checker,
		       struct slot_walk *walk)
{
	const struct hash_table *table = &walk->table;
	uint64_t start = 0, used = 0, i;

	while (start < table->slot_count && table->slots[start])
		start++;
	if (start == table->slot_count)
		return catalog_checker_refuse(checker, table->slots,
					      "no slot is free");
	/* Once round, from behind the end of a run. */
	for (i = 1; i < table->slot_count; i++) {
		uint64_t at = (start + i) & (table->slot_count - 1);
		const char *reason;

		if (!table->slots[at]) {
			walk->run = 0;
			continue;
		}
		reason = check_slot(checker->catalog, walk, at);
		if (reason)
			return catalog_checker_refuse(checker,
						      &table->slots[at],
						      reason);
		used++;
	}
	if (used != walk->count)
		return catalog_checker_refuse(checker, table->slots,
					      "entry without a slot");
	return 0;
}

static int check_tables(const struct catalog_checker *checker)
{
	const struct catalog *c = checker->catalog;
	struct slot_walk tensors = {
		.table = catalog_tensor_table(c), .count = c->tensor_count,
	};
	struct slot_walk objects = {
		.table = catalog_object_table(c),
		.first = c->tensor_count, .count = c->object_count,
	};
	int error = check_table(checker, &tensors);

	return error ? error : check_table(checker, &objects);
}

int catalog_check(const void *data, uint64_t size, struct fault *fault)
{
	struct catalog_checker checker = { .catalog = data, .fault = fault };
	int error = check_header(&checker, size);

	if (!error)
		error = check_files(&checker);
	if (!error)
		error = check_transforms(&checker);
	if (!error)
		error = catalog_checker_entries(&checker);
	return error ? error : check_tables(&checker);
}
