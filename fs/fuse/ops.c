/* SPDX-License-Identifier: Apache-2.0 */
/* Each operation says what it runs, how that is answered, and what has to be
 * undone when nobody took the answer; when that happens is told in request.c. */
#define FUSE_USE_VERSION 314
#include "fs/fuse/ops.h"

#include "fs/fuse/request.h"
#include "fs/log.h"
#include "shard/base/clock.h"
#include "shard/store/lanes.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

static struct request make_request(fuse_req_t fuse, uint64_t number,
				   const struct operation *operation)
{
	return (struct request){ .operation = operation, .fuse = fuse,
				 .all = fuse_req_userdata(fuse),
				 .number = number };
}

static struct namespace *ns_of(const struct request *request)
{
	return request->all->ns;
}

static void free_bytes(struct request *request)
{
	array_finish(&request->found.bytes);
}

/* ---- names and attributes ------------------------------------------------ */

static int run_lookup(struct request *request, bool nowait)
{
	return tree_lookup(ns_of(request), request->number, request->name,
			   nowait, &request->found.attr);
}

static int answer_lookup(struct request *request)
{
	const struct attr *attr = &request->found.attr;
	const struct fuse_entry_param entry = {
		.ino = attr->status.st_ino, .attr = attr->status,
		.attr_timeout = attr->timeout_s,
		.entry_timeout = attr->timeout_s,
	};

	return fuse_reply_entry(request->fuse, &entry);
}

static void undo_lookup(struct request *request)
{
	inode_table_forget(&ns_of(request)->inodes,
			   request->found.attr.status.st_ino, 1);
}

static const struct operation lookup = {
	.run = run_lookup, .answer = answer_lookup, .undo = undo_lookup,
};

static void op_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct request request = make_request(fuse, parent, &lookup);

	request.name = name;
	request_start(&request);
}

static void op_forget(fuse_req_t fuse, fuse_ino_t number, uint64_t count)
{
	const struct requests *all = fuse_req_userdata(fuse);

	inode_table_forget(&all->ns->inodes, number, count);
	fuse_reply_none(fuse);
}

static void op_forget_multi(fuse_req_t fuse, size_t count,
			    struct fuse_forget_data *forgets)
{
	const struct requests *all = fuse_req_userdata(fuse);
	size_t i;

	for (i = 0; i < count; i++)
		inode_table_forget(&all->ns->inodes, forgets[i].ino,
				   forgets[i].nlookup);
	fuse_reply_none(fuse);
}

static int run_getattr(struct request *request, bool nowait)
{
	return tree_status(ns_of(request), request->number, nowait,
			   &request->found.attr);
}

static int answer_getattr(struct request *request)
{
	return fuse_reply_attr(request->fuse, &request->found.attr.status,
			       request->found.attr.timeout_s);
}

static const struct operation getattr = {
	.run = run_getattr, .answer = answer_getattr,
};

static void op_getattr(fuse_req_t fuse, fuse_ino_t number,
		       struct fuse_file_info *info)
{
	const struct request request = make_request(fuse, number, &getattr);

	(void)info;
	request_start(&request);
}

static int run_readlink(struct request *request, bool nowait)
{
	request->found.bytes = (struct array){ .data = NULL };
	return tree_link(ns_of(request), request->number, nowait,
			 &request->found.bytes);
}

static int answer_readlink(struct request *request)
{
	return fuse_reply_readlink(request->fuse,
				   (const char *)request->found.bytes.data);
}

static const struct operation readlink_operation = {
	.run = run_readlink, .answer = answer_readlink, .finish = free_bytes,
};

static void op_readlink(fuse_req_t fuse, fuse_ino_t number)
{
	const struct request request = make_request(fuse, number,
						    &readlink_operation);

	request_start(&request);
}

/* The value, or its size. */
static int answer_value(struct request *request)
{
	const struct array *value = &request->found.bytes;

	if (request->size == 0)
		return fuse_reply_xattr(request->fuse, value->size);
	if (request->size < value->size)
		return fuse_reply_err(request->fuse, ERANGE);
	return fuse_reply_buf(request->fuse, (const char *)value->data,
			      value->size);
}

static int run_getxattr(struct request *request, bool nowait)
{
	(void)nowait;
	request->found.bytes = (struct array){ .data = NULL };
	return tree_attribute(ns_of(request), request->number, request->name,
			      &request->found.bytes);
}

static const struct operation getxattr = {
	.run = run_getxattr, .answer = answer_value, .finish = free_bytes,
};

static void op_getxattr(fuse_req_t fuse, fuse_ino_t number, const char *name,
			size_t size)
{
	struct request request = make_request(fuse, number, &getxattr);

	request.name = name;
	request.size = size;
	request_start(&request);
}

static int run_listxattr(struct request *request, bool nowait)
{
	(void)nowait;
	request->found.bytes = (struct array){ .data = NULL };
	return tree_attributes(ns_of(request), request->number,
			       &request->found.bytes);
}

static const struct operation listxattr = {
	.run = run_listxattr, .answer = answer_value, .finish = free_bytes,
};

static void op_listxattr(fuse_req_t fuse, fuse_ino_t number, size_t size)
{
	struct request request = make_request(fuse, number, &listxattr);

	request.size = size;
	request_start(&request);
}

static void op_statfs(fuse_req_t fuse, fuse_ino_t number)
{
	const struct requests *all = fuse_req_userdata(fuse);
	struct statvfs status;
	int error = tree_statfs(all->ns, &status);

	(void)number;
	if (error)
		fuse_reply_err(fuse, -error);
	else
		fuse_reply_statfs(fuse, &status);
}

/* ---- files --------------------------------------------------------------- */

static int run_open(struct request *request, bool nowait)
{
	return tree_open(ns_of(request), request->number, nowait,
			 &request->found.opened);
}

static int answer_open(struct request *request)
{
	const struct open_file *file = request->found.opened;
	const struct fuse_file_info info = {
		.flags = request->flags, .fh = (uintptr_t)file,
		.keep_cache = file->keep_cache, .direct_io = file->direct,
		/* Nothing is written through it. */
		.noflush = 1,
	};

	return fuse_reply_open(request->fuse, &info);
}

static void undo_open(struct request *request)
{
	open_file_put(request->found.opened);
}

static const struct operation open_operation = {
	.run = run_open, .answer = answer_open, .undo = undo_open,
};

static void op_open(fuse_req_t fuse, fuse_ino_t number,
		    struct fuse_file_info *info)
{
	struct request request = make_request(fuse, number, &open_operation);

	request.flags = info->flags;
	request_start(&request);
}

static void log_read(const struct request *request, const struct reply *reply)
{
	const struct fault *fault = &reply->fault;
	char what[512];

	request->file->ops->describe(request->file, what, sizeof(what));
	log_line(LOG_LEVEL_ERROR, "%s: %s: byte %llu: %s%s%s", what,
		 reply->fault_file, (unsigned long long)fault->offset,
		 fault->reason, *fault->detail ? ": " : "", fault->detail);
}

static void count_read(const struct request *request, const struct reply *reply,
		       int error)
{
	struct counters *counters = &ns_of(request)->counters;

	counters_add(&counters->reads[reply->rank >= 0 ? COUNTERS_PEER :
							 COUNTERS_LOCAL],
		     error ? 0 : reply->size, error, request->began_ns);
}

static int run_read(struct request *request, bool nowait)
{
	struct reply *reply = reply_of_thread();
	int error;

	request->found.reply = reply;
	/* Once it has the answer, the client may close the file. */
	open_file_hold(request->file);
	if (!reply)
		return -ENOMEM;
	reply->nowait = nowait;
	reply->takes_loans = true;
	error = open_file_read(request->file, request->size, request->offset,
			       reply);
	request->lane = lane_of_reading(reply->rank);
	if (error == -EAGAIN && nowait)
		return error;
	count_read(request, reply, error);
	if (error && reply->fault.error)
		log_read(request, reply);
	return error;
}

static int answer_read(struct request *request)
{
	const struct reply *reply = request->found.reply;

	return fuse_reply_buf(request->fuse, (const char *)reply->data,
			      reply->size);
}

static void finish_read(struct request *request)
{
	if (request->found.reply)
		reply_release(request->found.reply);
	open_file_put(request->file);
}

static const struct operation read_operation = {
	.run = run_read, .answer = answer_read, .finish = finish_read,
};

static void op_read(fuse_req_t fuse, fuse_ino_t number, size_t size,
		    off_t offset, struct fuse_file_info *info)
{
	struct request request = make_request(fuse, number, &read_operation);

	request.size = size;
	request.offset = (uint64_t)offset;
	request.file = (void *)(uintptr_t)info->fh;
	request.began_ns = clock_ns();
	request_start(&request);
}

static void op_release(fuse_req_t fuse, fuse_ino_t number,
		       struct fuse_file_info *info)
{
	(void)number;
	open_file_put((void *)(uintptr_t)info->fh);
	fuse_reply_err(fuse, 0);
}

/* ---- folders ------------------------------------------------------------- */

static int run_opendir(struct request *request, bool nowait)
{
	return tree_open_folder(ns_of(request), request->number, nowait,
				&request->found.opened_folder);
}

static int answer_opendir(struct request *request)
{
	const struct open_folder *folder = request->found.opened_folder;
	const struct fuse_file_info info = {
		.flags = request->flags, .fh = (uintptr_t)folder,
		.keep_cache = folder->immutable,
		.cache_readdir = folder->immutable,
	};

	return fuse_reply_open(request->fuse, &info);
}

static void undo_opendir(struct request *request)
{
	open_folder_put(request->found.opened_folder);
}

static const struct operation opendir_operation = {
	.run = run_opendir, .answer = answer_opendir, .undo = undo_opendir,
};

static void op_opendir(fuse_req_t fuse, fuse_ino_t number,
		       struct fuse_file_info *info)
{
	struct request request = make_request(fuse, number,
					      &opendir_operation);

	request.flags = info->flags;
	request_start(&request);
}

/* Positions 0 and 1 are "." and ".."; entry n of the folder is n + 2. */
static int next_entry(const struct request *request, uint64_t position,
		      bool nowait, struct listed *listed)
{
	struct open_folder *folder = request->folder;
	int error;

	if (position < 2) {
		memset(listed, 0, sizeof(*listed));
		strcpy(listed->name, position ? ".." : ".");
		listed->number = position ? 0 : request->number;
		listed->type = S_IFDIR;
		listed->next = position + 1;
		return 0;
	}
	error = folder->ops->next(folder, position - 2, nowait, listed);
	listed->next += 2;
	return error;
}

/* One entry at the end of @size bytes; returns the bytes it needs. */
static size_t add_entry(const struct request *request, bool plus,
			const struct listed *listed, char *buffer, size_t size)
{
	/* libfuse's request may be gone: it has no use for it here. The number
	 * is what its own high-level API says for an unknown one. */
	uint64_t number = listed->number ? listed->number : 0xffffffff;
	struct fuse_entry_param entry = { .generation = 0 };
	off_t next = (off_t)listed->next;

	entry.attr.st_ino = number;
	entry.attr.st_mode = listed->type;
	if (!plus)
		return fuse_add_direntry(request->fuse, buffer, size,
					 listed->name, &entry.attr, next);
	if (listed->has_status) {
		entry.ino = number;
		entry.attr = listed->status;
		entry.attr_timeout = entry.entry_timeout = TIMEOUT_CONST_S;
	}
	return fuse_add_direntry_plus(request->fuse, buffer, size,
				      listed->name, &entry, next);
}

/* The kernel is told of what is listed with its status. */
static void look_up(struct request *request, uint64_t number)
{
	inode_table_look_up(&ns_of(request)->inodes, number);
	request->found.list.last = number;
	request->found.list.lookups++;
}

static int run_list(struct request *request, bool nowait, bool plus)
{
	struct array *entries = &request->found.list.entries;
	uint64_t position = request->offset;
	struct listed listed;
	size_t needed, left;
	char *room;
	int error;

	memset(&request->found.list, 0, sizeof(request->found.list));
	room = array_add(entries, request->size);
	error = room ? 0 : -ENOMEM;
	for (left = request->size; !error; left -= needed) {
		error = next_entry(request, position, nowait, &listed);
		if (error)
			break;
		needed = add_entry(request, plus, &listed, room, left);
		if (needed > left)
			break;
		room += needed;
		position = listed.next;
		if (plus && listed.has_status)
			look_up(request, listed.number);
	}
	if (room)
		entries->size = request->size - left;
	/* What has been listed is an answer; the next request goes on there. */
	return error == -ENOENT || left < request->size ? 0 : error;
}

static int run_readdir(struct request *request, bool nowait)
{
	return run_list(request, nowait, false);
}

static int run_readdirplus(struct request *request, bool nowait)
{
	return run_list(request, nowait, true);
}

static int answer_list(struct request *request)
{
	const struct array *entries = &request->found.list.entries;

	return fuse_reply_buf(request->fuse, (const char *)entries->data,
			      entries->size);
}

/* All numbers are of one checkpoint, which is what counts them. */
static void undo_list(struct request *request)
{
	if (request->found.list.lookups > 0)
		inode_table_forget(&ns_of(request)->inodes,
				   request->found.list.last,
				   request->found.list.lookups);
}

static void finish_list(struct request *request)
{
	array_finish(&request->found.list.entries);
}

static const struct operation readdir_operation = {
	.run = run_readdir, .answer = answer_list, .finish = finish_list,
};

static const struct operation readdirplus = {
	.run = run_readdirplus, .answer = answer_list, .undo = undo_list,
	.finish = finish_list,
};

static struct request make_list(fuse_req_t fuse, fuse_ino_t number, size_t size,
				off_t offset, const struct fuse_file_info *info)
{
	struct request request = make_request(fuse, number, NULL);

	request.size = size;
	request.offset = (uint64_t)offset;
	request.folder = (void *)(uintptr_t)info->fh;
	return request;
}

static void op_readdir(fuse_req_t fuse, fuse_ino_t number, size_t size,
		       off_t offset, struct fuse_file_info *info)
{
	struct request request = make_list(fuse, number, size, offset, info);

	request.operation = &readdir_operation;
	request_start(&request);
}

static void op_readdirplus(fuse_req_t fuse, fuse_ino_t number, size_t size,
			   off_t offset, struct fuse_file_info *info)
{
	struct request request = make_list(fuse, number, size, offset, info);

	request.operation = &readdirplus;
	request_start(&request);
}

static void op_releasedir(fuse_req_t fuse, fuse_ino_t number,
			  struct fuse_file_info *info)
{
	(void)number;
	open_folder_put((void *)(uintptr_t)info->fh);
	fuse_reply_err(fuse, 0);
}

/* ---- the session --------------------------------------------------------- */

static void op_init(void *context, struct fuse_conn_info *conn)
{
	const struct requests *all = context;
	unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS |
			FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
			FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS;

	/* With it, the kernel waits for such a read whatever signal comes. */
	if (!all->interruptible)
		want |= FUSE_CAP_ASYNC_DIO;
	conn->want = conn->capable & want;
	conn->max_read = LIMIT_READ_SIZE;
	conn->max_write = LIMIT_READ_SIZE;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	all->ready(all->ready_context);
}

static const struct fuse_lowlevel_ops table = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.readlink = op_readlink,
	.open = op_open,
	.read = op_read,
	.release = op_release,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.statfs = op_statfs,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
};

const void *ops_table(size_t *ret_size)
{
	*ret_size = sizeof(table);
	return &table;
}
