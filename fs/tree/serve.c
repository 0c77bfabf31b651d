/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank answers for its own store only, never for what it would have to ask
 * others for: no two ranks wait for each other. Exceptions are a catalog,
 * which comes from the ranks above in the tree, and what it remembers of a
 * rank that does not answer.
 */
#include "fs/tree/serve.h"

#include "fs/log.h"
#include "fs/tree/folder_inode.h"
#include "fs/tree/revalidate.h"
#include "shard/base/clock.h"
#include "shard/store/folder_records.h"
#include "shard/store/union_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- stored files -------------------------------------------------------- */

static int serve_list(void *context, uint32_t of, const char *path,
		      const char *after, void *buffer, size_t size,
		      size_t *ret_size)
{
	struct namespace *ns = context;
	struct array list = { .data = NULL };
	size_t after_size = strlen(after), position = 0, begin = 0, end = 0;
	struct stored stored;
	int error = of == PEERS_OWN ? folder_records_list(ns->root, path, &list) :
		    union_store_recall(ns->store, path, of, &list);

	while (!error && stored_entry_next(list.data, list.size, &position,
					   &stored)) {
		size_t common = stored.entry.name_size < after_size ?
				stored.entry.name_size : after_size;
		int order = memcmp(stored.name, after, common);

		if (order == 0)
			order = (stored.entry.name_size > after_size) -
				(stored.entry.name_size < after_size);
		if (order <= 0)
			begin = end = position;
		else if (position - begin <= size)
			end = position;
		else
			break;
	}
	if (!error && end > begin)
		memcpy(buffer, list.data + begin, end - begin);
	*ret_size = end - begin;
	array_finish(&list);
	return error;
}

static int serve_status(void *context, const char *path, struct array *out)
{
	struct namespace *ns = context;

	return folder_records_status(ns->root, path, out);
}

/* Is what was opened what is wanted? */
static bool is_wanted(const struct file_range *range,
		      const struct stat *status)
{
	struct pin pin = pin_from_stat(status);

	if (range->pin.inode == 0)
		return true;
	return range->exact ? pin_equal(&pin, &range->pin) :
	       pin.device == range->pin.device &&
	       pin.inode == range->pin.inode;
}

static int open_range(struct namespace *ns, const struct file_range *range,
		      int *ret_fd)
{
	struct stat status;
	int fd, error = folder_records_open(ns->root, range->path, &fd, &status);

	if (error)
		return io_is_missing(error) ? -ESTALE : error;
	if (!is_wanted(range, &status)) {
		close(fd);
		return -ESTALE;
	}
	*ret_fd = fd;
	return 0;
}

static int serve_digest(void *context, const struct file_range *range,
			uint64_t ret_hash[2])
{
	int fd, error = open_range(context, range, &fd);

	if (error)
		return error;
	if (range->pin.size > LIMIT_COMPARE_SIZE)
		error = -E2BIG;
	else
		error = folder_records_digest(fd, range->pin.size, ret_hash);
	close(fd);
	return error;
}

static int read_range(int fd, const struct file_range *range, char *buffer,
		      size_t *ret_size)
{
	size_t done = 0;

	while (done < range->size) {
		ssize_t got = pread(fd, buffer + done, range->size - done,
				    (off_t)(range->offset + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	*ret_size = done;
	return 0;
}

static int serve_file(void *context, const struct file_range *range,
		      void *buffer, size_t *ret_size)
{
	struct namespace *ns = context;
	uint64_t began = clock_ns();
	struct stat status;
	int fd, error = open_range(ns, range, &fd);

	if (error)
		return error;
	error = read_range(fd, range, buffer, ret_size);
	/* Changed meanwhile? */
	if (!error && (fstat(fd, &status) < 0 || !is_wanted(range, &status)))
		error = -ESTALE;
	close(fd);
	counters_add(&ns->counters.reads[COUNTERS_SERVED],
		     error ? 0 : *ret_size, error, began);
	return error;
}

/* ---- catalogs ------------------------------------------------------------ */

/* The folder, which stays for a while: what was found out about it would be
 * gone with the last hold. The caller puts it. */
static struct folder *keep_folder(struct namespace *ns, const char *path)
{
	struct folder *folder = folder_inode_walk(ns, path), *old = NULL;
	unsigned i;

	if (!folder)
		return NULL;
	pthread_mutex_lock(&ns->kept_lock);
	for (i = 0; i < NAMESPACE_KEPT && ns->kept[i] != folder; i++)
		;
	if (i == NAMESPACE_KEPT) {
		i = ns->kept_next++ % NAMESPACE_KEPT;
		old = ns->kept[i];
		ns->kept[i] = folder;
		folder_hold(ns, folder);
	}
	pthread_mutex_unlock(&ns->kept_lock);
	if (old)
		folder_put(ns, old);
	return folder;
}

static int copy_part(const struct catalog *catalog, uint64_t offset,
		     void *buffer, size_t size, size_t *ret_size)
{
	if (offset >= catalog->size)
		return -EINVAL;
	if (size > catalog->size - offset)
		size = catalog->size - offset;
	memcpy(buffer, (const char *)catalog + offset, size);
	*ret_size = size;
	return 0;
}

static int find_catalog(struct namespace *ns, struct folder *folder,
			const struct catalog_wanted *wanted,
			struct mounted **ret_mounted)
{
	if (!wanted->kept)
		return revalidate_for(ns, folder, wanted->signature,
				      ret_mounted);
	*ret_mounted = folder_mounted(ns, folder);
	if (!*ret_mounted)
		return -ESTALE;
	if ((*ret_mounted)->checkpoint->signature == wanted->signature)
		return 0;
	inode_table_put_mounted(&ns->inodes, *ret_mounted);
	return -ESTALE;
}

static int serve_catalog(void *context, const struct catalog_part *part,
			 void *buffer, size_t size, size_t *ret_size,
			 uint64_t *ret_total)
{
	struct namespace *ns = context;
	struct folder *folder = keep_folder(ns, part->wanted.path);
	struct mounted *mounted;
	int error;

	if (!folder)
		return -ENOMEM;
	error = find_catalog(ns, folder, &part->wanted, &mounted);
	folder_put(ns, folder);
	if (error)
		return error;
	*ret_total = mounted->checkpoint->catalog->size;
	error = copy_part(mounted->checkpoint->catalog, part->offset, buffer,
			  size, ret_size);
	inode_table_put_mounted(&ns->inodes, mounted);
	return error;
}

/* The one that @id means and that is not retired, with one hold, or NULL. */
static struct mounted *find_id(struct namespace *ns,
			       const struct catalog_id *id)
{
	struct mounted *mounted;

	pthread_mutex_lock(&ns->inodes.lock);
	LIST_FOREACH(mounted, &ns->inodes.mounted, link) {
		const struct catalog *catalog = mounted->checkpoint->catalog;

		if (catalog->hash[0] == id->hash[0] &&
		    catalog->hash[1] == id->hash[1] &&
		    catalog_folder(mounted->path) == id->folder &&
		    !atomic_load(&mounted->retired))
			break;
	}
	if (mounted)
		mounted->holds++;
	pthread_mutex_unlock(&ns->inodes.lock);
	return mounted;
}

static int serve_learn(void *context, const char *path, const uint64_t hash[2])
{
	struct namespace *ns = context;
	struct folder *folder = keep_folder(ns, path);
	const struct catalog_id id = {
		.hash = { hash[0], hash[1] }, .folder = catalog_folder(path),
	};
	struct mounted *mounted;

	if (!folder)
		return -ENOMEM;
	/* It may be known, with files that were there before. */
	revalidate_now(ns, folder);
	mounted = find_id(ns, &id);
	folder_put(ns, folder);
	if (!mounted)
		return -ESTALE;
	inode_table_put_mounted(&ns->inodes, mounted);
	return 0;
}

/* ---- shards -------------------------------------------------------------- */

/* Is the piece one of a shard that this rank has? Sets its bytes. */
static int check_piece(const struct namespace *ns, const struct mounted *mounted,
		       const struct catalog_entry *entry,
		       const struct piece *piece, uint64_t pin)
{
	const struct checkpoint *c = mounted->checkpoint;
	const struct replica *own;
	uint32_t file;
	struct box box;
	unsigned i;

	if (piece->shard >= entry->shard_count)
		return -EINVAL;
	catalog_box(c->catalog, entry, piece->shard, &box);
	for (i = 0; i < box.ndim; i++)
		if (piece->offset[i] > box.size[i] ||
		    piece->count[i] > box.size[i] - piece->offset[i])
			return -EINVAL;
	file = catalog_shard(c->catalog, entry, piece->shard)->file;
	/* It, or we, have not seen yet that the file is another one. */
	own = placement_local(c->placement, file);
	return own && own->rank == ns->peers->rank &&
	       pin_hash(&own->pin) == pin ? 0 : -ENODATA;
}

static void log_fault(const struct mounted *mounted,
		      const struct catalog_entry *entry,
		      const struct reply *reply)
{
	const struct fault *fault = &reply->fault;

	log_line(LOG_LEVEL_ERROR, "%s%s%.*s: %s: byte %llu: %s%s%s",
		 mounted->path, *mounted->path ? "/" : "",
		 entry->name_size > 256 ? 256 : (int)entry->name_size,
		 catalog_text(mounted->checkpoint->catalog, entry->name),
		 reply->fault_file, (unsigned long long)fault->offset,
		 fault->reason, *fault->detail ? ": " : "", fault->detail);
}

/* One piece, dense, behind the base of the reply. */
static int read_piece(const struct mounted *mounted,
		      const struct catalog_entry *entry,
		      const struct piece *wanted, struct reply *reply)
{
	struct source *source = checkpoint_local_source(mounted->checkpoint);
	struct box dense = { .ndim = entry->ndim };
	struct piece piece = *wanted;
	struct plan plan;
	int error;

	memcpy(dense.size, piece.count, sizeof(dense.size));
	memset(dense.offset, 0, sizeof(dense.offset));
	piece.target = 0;
	plan_init(&plan, mounted->checkpoint->catalog, entry, &dense, 0, 0);
	error = source->read(source, &plan, &piece, 1, reply);
	if (reply->fault.error) {
		log_fault(mounted, entry, reply);
		reply->fault.error = 0;
	}
	return error;
}

static int read_pieces(const struct namespace *ns, const struct mounted *mounted,
		       const struct piece_request *request,
		       struct reply *reply, size_t *ret_size)
{
	const struct catalog *catalog = mounted->checkpoint->catalog;
	const struct catalog_entry *entry =
		catalog_entry(catalog, request->entry);
	uint64_t element = dtype_info((enum dtype)entry->dtype)->size;
	uint64_t size = 0;
	unsigned i, j;
	int error = element == 0 || entry->ndim != request->ndim ? -EINVAL : 0;

	for (i = 0; i < request->count && !error; i++) {
		const struct piece *piece = &request->pieces[i];
		uint64_t bytes = element;

		error = check_piece(ns, mounted, entry, piece, request->pins[i]);
		for (j = 0; j < entry->ndim; j++)
			bytes *= piece->count[j];
		if (!error && bytes > reply->size - size)
			error = -E2BIG;
		reply->base = size;
		if (!error)
			error = read_piece(mounted, entry, piece, reply);
		size += bytes;
	}
	*ret_size = size;
	return error;
}

static int serve_pieces(void *context, const struct piece_request *request,
			struct reply *reply, size_t *ret_size)
{
	struct namespace *ns = context;
	struct mounted *mounted = find_id(ns, &request->id);
	uint64_t began = clock_ns();
	const struct catalog *catalog;
	int error = -EINVAL;

	/* It is to learn it first. */
	if (!mounted)
		return -ENODATA;
	catalog = mounted->checkpoint->catalog;
	if (request->entry < catalog->tensor_count + catalog->object_count)
		error = read_pieces(ns, mounted, request, reply, ret_size);
	inode_table_put_mounted(&ns->inodes, mounted);
	counters_add(&ns->counters.reads[COUNTERS_SERVED],
		     error ? 0 : *ret_size, error, began);
	return error;
}

void serve_handlers(struct namespace *ns, struct peer_handlers *ret_handlers)
{
	*ret_handlers = (struct peer_handlers){
		.context = ns, .list = serve_list, .status = serve_status,
		.digest = serve_digest, .file = serve_file,
		.catalog = serve_catalog, .pieces = serve_pieces,
		.learn = serve_learn,
	};
}
