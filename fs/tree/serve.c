/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank answers for its own store only, never for what it would have to ask
 * others for: no two ranks wait for each other. Exceptions are a catalog,
 * which comes from the ranks above in the tree, and what it remembers of a
 * rank that does not answer.
 */
#include "fs/tree/serve.h"

#include "fs/log.h"
#include "fs/tree/stored.h"
#include "shard/store/folder_store.h"

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
	int error = of == PEERS_OWN ? store_list(ns->root, path, &list) :
		    merger_recall(ns->merger, path, of, &list);

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

	return store_status(ns->root, path, out);
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
	int fd, error = store_open(ns->root, range->path, &fd, &status);

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
		error = store_digest(fd, range->pin.size, ret_hash);
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
	uint64_t began = counters_now();
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
 * gone with the last reference. */
static struct folder *keep_folder(struct namespace *ns, const char *path)
{
	struct folder *folder = nodes_get_folder(&ns->nodes, path), *old = NULL;
	unsigned i;

	if (!folder)
		return NULL;
	pthread_mutex_lock(&ns->kept_lock);
	for (i = 0; i < NAMESPACE_KEPT && ns->kept[i] != folder; i++)
		;
	if (i == NAMESPACE_KEPT) {
		i = ns->kept_next++ % NAMESPACE_KEPT;
		old = ns->kept[i];
		ns->kept[i] = nodes_get_folder(&ns->nodes, path);
	}
	pthread_mutex_unlock(&ns->kept_lock);
	if (old)
		nodes_put_folder(&ns->nodes, old);
	return folder;
}

static bool has_signature(const struct live *live, uint64_t signature)
{
	return live && live->checkpoint->spread->signature == signature;
}

/* The live checkpoint that was made from what @signature says. */
static struct live *find_live(struct namespace *ns, struct folder *folder,
			      uint64_t signature)
{
	struct live *live;

	namespace_look(ns, folder);
	live = nodes_live(&ns->nodes, folder);
	if (has_signature(live, signature) || folder->refused == signature)
		return live;
	if (live)
		nodes_put_live(&ns->nodes, live);
	namespace_look_again(ns, folder);
	return nodes_live(&ns->nodes, folder);
}

/* As it was made: whose the files are is for each rank to find out. */
static void clear_ranks(const struct catalog *catalog, uint64_t begin,
			uint64_t end, unsigned char *buffer)
{
	const uint64_t each = sizeof(struct catalog_file);
	uint64_t first = catalog->files + offsetof(struct catalog_file, rank);
	uint64_t i = begin > first + 4 ? (begin - first - 4) / each : 0, j;

	for (; i < catalog->file_count && first + i * each < end; i++)
		for (j = first + i * each; j < first + i * each + 4; j++)
			if (j >= begin && j < end)
				buffer[j - begin] = 0;
}

static int copy_part(const struct catalog *catalog, uint64_t offset,
		     void *buffer, size_t size, size_t *ret_size)
{
	if (offset >= catalog->size)
		return -EINVAL;
	if (size > catalog->size - offset)
		size = catalog->size - offset;
	memcpy(buffer, (const char *)catalog + offset, size);
	clear_ranks(catalog, offset, offset + size, buffer);
	*ret_size = size;
	return 0;
}

static int serve_catalog(void *context, const struct catalog_part *part,
			 void *buffer, size_t size, size_t *ret_size,
			 uint64_t *ret_total)
{
	struct namespace *ns = context;
	struct folder *folder = keep_folder(ns, part->path);
	struct live *live;
	int error = -ESTALE;

	if (!folder)
		return -ENOMEM;
	live = part->kept ? nodes_live(&ns->nodes, folder) :
			    find_live(ns, folder, part->signature);
	if (has_signature(live, part->signature)) {
		*ret_total = live->checkpoint->catalog->size;
		error = copy_part(live->checkpoint->catalog, part->offset,
				  buffer, size, ret_size);
	} else if (!live && folder->refused == part->signature) {
		error = -EBADMSG;
	}
	if (live)
		nodes_put_live(&ns->nodes, live);
	nodes_put_folder(&ns->nodes, folder);
	return error;
}

static int serve_learn(void *context, const char *path, const uint64_t hash[2])
{
	struct namespace *ns = context;
	struct folder *folder = keep_folder(ns, path);
	const struct catalog_id id = {
		.hash = { hash[0], hash[1] }, .folder = catalog_folder(path),
	};
	struct live *live;

	if (!folder)
		return -ENOMEM;
	/* It may be known, with files that were there before. */
	namespace_look_again(ns, folder);
	live = nodes_find_id(&ns->nodes, &id);
	nodes_put_folder(&ns->nodes, folder);
	if (!live)
		return -ESTALE;
	nodes_put_live(&ns->nodes, live);
	return 0;
}

/* ---- shards -------------------------------------------------------------- */

/* Is the piece one of a shard that this rank has? Sets its bytes. */
static int check_piece(const struct namespace *ns, const struct live *live,
		       const struct catalog_entry *entry,
		       const struct piece *piece, uint64_t pin)
{
	const struct checkpoint *c = live->checkpoint;
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
	if (c->spread->ranks[file] != ns->peers->rank ||
	    pin_hash(&c->pins[file]) != pin)
		return -ENODATA;
	return 0;
}

static void log_fault(const struct live *live,
		      const struct catalog_entry *entry,
		      const struct reply *reply)
{
	const struct fault *fault = &reply->fault;

	log_line(LOG_LEVEL_ERROR, "%s%s%.*s: %s: byte %llu: %s%s%s",
		 live->path, *live->path ? "/" : "",
		 entry->name_size > 256 ? 256 : (int)entry->name_size,
		 catalog_text(live->checkpoint->catalog, entry->name),
		 reply->fault_file, (unsigned long long)fault->offset,
		 fault->reason, *fault->detail ? ": " : "", fault->detail);
}

/* One piece, dense, behind the base of the reply. */
static int read_piece(const struct live *live,
		      const struct catalog_entry *entry,
		      const struct piece *wanted, struct reply *reply)
{
	struct source *source = checkpoint_local_source(live->checkpoint);
	struct box dense = { .ndim = entry->ndim };
	struct piece piece = *wanted;
	struct plan plan;
	int error;

	memcpy(dense.size, piece.count, sizeof(dense.size));
	memset(dense.offset, 0, sizeof(dense.offset));
	piece.target = 0;
	plan_init(&plan, live->checkpoint->catalog, entry, &dense, 0, 0);
	error = source->read(source, &plan, &piece, 1, reply);
	if (reply->fault.error) {
		log_fault(live, entry, reply);
		reply->fault.error = 0;
	}
	return error;
}

static int read_pieces(const struct namespace *ns, const struct live *live,
		       const struct piece_request *request,
		       struct reply *reply, size_t *ret_size)
{
	const struct catalog *catalog = live->checkpoint->catalog;
	const struct catalog_entry *entry =
		catalog_entry(catalog, request->entry);
	uint64_t element = dtype_info((enum dtype)entry->dtype)->size;
	uint64_t size = 0;
	unsigned i, j;
	int error = element == 0 || entry->ndim != request->ndim ? -EINVAL : 0;

	for (i = 0; i < request->count && !error; i++) {
		const struct piece *piece = &request->pieces[i];
		uint64_t bytes = element;

		error = check_piece(ns, live, entry, piece, request->pins[i]);
		for (j = 0; j < entry->ndim; j++)
			bytes *= piece->count[j];
		if (!error && bytes > reply->size - size)
			error = -E2BIG;
		reply->base = size;
		if (!error)
			error = read_piece(live, entry, piece, reply);
		size += bytes;
	}
	*ret_size = size;
	return error;
}

static int serve_pieces(void *context, const struct piece_request *request,
			struct reply *reply, size_t *ret_size)
{
	struct namespace *ns = context;
	struct live *live = nodes_find_id(&ns->nodes, &request->id);
	uint64_t began = counters_now();
	const struct catalog *catalog;
	int error = -EINVAL;

	/* It is to learn it first. */
	if (!live)
		return -ENODATA;
	catalog = live->checkpoint->catalog;
	if (live->checkpoint->spread &&
	    request->entry < catalog->tensor_count + catalog->object_count)
		error = read_pieces(ns, live, request, reply, ret_size);
	nodes_put_live(&ns->nodes, live);
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
