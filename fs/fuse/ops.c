/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operation decodes, calls down and replies exactly once: where that can
 * happen, and why it may be too late, is told in call.c.
 */
#define FUSE_USE_VERSION 314
#include "fs/fuse/ops.h"

#include "fs/fuse/request.h"
#include "fs/log.h"
#include "shard/store/lanes.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>

/* ---- names and attributes ------------------------------------------------ */

static int run_lookup(struct call *call, bool nowait)
{
	struct fuse_entry_param entry = { .generation = 0 };
	struct found found;
	int error = namespace_lookup(call->ops->ns, call->inode, call->name,
				     nowait, &found);

	if (error == -EAGAIN && nowait)
		return error;
	if (error) {
		if (call_claim(call))
			fuse_reply_err(call->request, -error);
		return 0;
	}
	entry.ino = found.status.st_ino;
	entry.attr = found.status;
	entry.attr_timeout = entry.entry_timeout = found.timeout_s;
	/* Nobody waits for it any more: the kernel did not take it. */
	if (!call_claim(call) || fuse_reply_entry(call->request, &entry))
		namespace_forget(call->ops->ns, entry.ino, 1);
	return 0;
}

static void op_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
	struct call call = call_make(request, parent, run_lookup);

	call_start(&call, name);
}

static void op_forget(fuse_req_t request, fuse_ino_t inode, uint64_t count)
{
	const struct ops *ops = fuse_req_userdata(request);

	namespace_forget(ops->ns, inode, count);
	fuse_reply_none(request);
}

static void op_forget_multi(fuse_req_t request, size_t count,
			    struct fuse_forget_data *forgets)
{
	const struct ops *ops = fuse_req_userdata(request);
	size_t i;

	for (i = 0; i < count; i++)
		namespace_forget(ops->ns, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(request);
}

static int run_getattr(struct call *call, bool nowait)
{
	struct found found;
	int error = namespace_status(call->ops->ns, call->inode, nowait,
				     &found);

	if (error == -EAGAIN && nowait)
		return error;
	if (!call_claim(call))
		return 0;
	if (error)
		fuse_reply_err(call->request, -error);
	else
		fuse_reply_attr(call->request, &found.status, found.timeout_s);
	return 0;
}

static void op_getattr(fuse_req_t request, fuse_ino_t inode,
		       struct fuse_file_info *info)
{
	struct call call = call_make(request, inode, run_getattr);

	(void)info;
	call_start(&call, NULL);
}

static int run_readlink(struct call *call, bool nowait)
{
	struct array target = { .data = NULL };
	int error = namespace_link(call->ops->ns, call->inode, nowait,
				   &target);

	if (error == -EAGAIN && nowait) {
		array_finish(&target);
		return error;
	}
	if (call_claim(call)) {
		if (error)
			fuse_reply_err(call->request, -error);
		else
			fuse_reply_readlink(call->request, target.data);
	}
	array_finish(&target);
	return 0;
}

static void op_readlink(fuse_req_t request, fuse_ino_t inode)
{
	struct call call = call_make(request, inode, run_readlink);

	call_start(&call, NULL);
}

/* The answer to getxattr and listxattr: the value, or its size. */
static void reply_value(fuse_req_t request, const struct array *value,
			size_t size, int error)
{
	if (error)
		fuse_reply_err(request, -error);
	else if (size == 0)
		fuse_reply_xattr(request, value->size);
	else if (size < value->size)
		fuse_reply_err(request, ERANGE);
	else
		fuse_reply_buf(request, value->data, value->size);
}

static void op_getxattr(fuse_req_t request, fuse_ino_t inode, const char *name,
			size_t size)
{
	const struct ops *ops = fuse_req_userdata(request);
	struct array value = { .data = NULL };
	int error = namespace_attribute(ops->ns, inode, name, &value);

	reply_value(request, &value, size, error);
	array_finish(&value);
}

static void op_listxattr(fuse_req_t request, fuse_ino_t inode, size_t size)
{
	const struct ops *ops = fuse_req_userdata(request);
	struct array names = { .data = NULL };
	int error = namespace_attributes(ops->ns, inode, &names);

	reply_value(request, &names, size, error);
	array_finish(&names);
}

static void op_statfs(fuse_req_t request, fuse_ino_t inode)
{
	const struct ops *ops = fuse_req_userdata(request);
	struct statvfs status;
	int error = namespace_statfs(ops->ns, &status);

	(void)inode;
	if (error)
		fuse_reply_err(request, -error);
	else
		fuse_reply_statfs(request, &status);
}

/* ---- files --------------------------------------------------------------- */

static int run_open(struct call *call, bool nowait)
{
	struct fuse_file_info info = { .flags = (int)call->offset };
	struct opened opened;
	int error = namespace_open(call->ops->ns, call->inode, nowait,
				   &opened);

	if (error == -EAGAIN && nowait)
		return error;
	if (error) {
		if (call_claim(call))
			fuse_reply_err(call->request, -error);
		return 0;
	}
	info.fh = (uintptr_t)opened.handle;
	info.keep_cache = opened.keep_cache;
	info.direct_io = opened.direct;
	info.noflush = 1;
	if (!call_claim(call) || fuse_reply_open(call->request, &info))
		namespace_close(call->ops->ns, opened.handle);
	return 0;
}

static void op_open(fuse_req_t request, fuse_ino_t inode,
		    struct fuse_file_info *info)
{
	struct call call = call_make(request, inode, run_open);

	call.offset = (uint64_t)info->flags;
	call_start(&call, NULL);
}

static void log_read(const struct call *call, const struct fault *fault,
		     const char *file)
{
	char what[512];

	handle_describe(call->handle, what, sizeof(what));
	log_line(LOG_LEVEL_ERROR, "%s: %s: byte %llu: %s%s%s", what, file,
		 (unsigned long long)fault->offset, fault->reason,
		 *fault->detail ? ": " : "", fault->detail);
}

static void count_read(const struct call *call, const struct reply *reply,
		       int error)
{
	struct counters *counters = &call->ops->ns->counters;

	counters_add(&counters->reads[reply->rank >= 0 ? COUNTERS_PEER :
							 COUNTERS_LOCAL],
		     error ? 0 : reply->size, error, call->began_ns);
}

static int read_into(struct call *call, struct reply *reply, bool nowait)
{
	int error;

	reply->nowait = nowait;
	reply->takes_loans = true;
	error = namespace_read(call->ops->ns, call->handle, call->size,
			       call->offset, reply);
	call->job.lane = lane_of_reading(reply->rank);
	return error;
}

static int run_read(struct call *call, bool nowait)
{
	struct reply *reply = reply_of_thread();
	int error = reply ? read_into(call, reply, nowait) : -ENOMEM;

	if (error == -EAGAIN && nowait) {
		reply_release(reply);
		return error;
	}
	if (reply)
		count_read(call, reply, error);
	if (error && reply && reply->fault.error)
		log_read(call, &reply->fault, reply->fault_file);
	/* Once it has the answer, the client may close the file. */
	handle_hold(call->handle);
	if (call_claim(call)) {
		if (error)
			fuse_reply_err(call->request, -error);
		else
			fuse_reply_buf(call->request, (const char *)reply->data,
				       reply->size);
	}
	if (reply)
		reply_release(reply);
	namespace_close(call->ops->ns, call->handle);
	return 0;
}

static void op_read(fuse_req_t request, fuse_ino_t inode, size_t size,
		    off_t offset, struct fuse_file_info *info)
{
	struct call call = call_make(request, inode, run_read);

	call.size = size;
	call.offset = (uint64_t)offset;
	call.handle = (void *)(uintptr_t)info->fh;
	call.began_ns = counters_now();
	call_start(&call, NULL);
}

static void op_release(fuse_req_t request, fuse_ino_t inode,
		       struct fuse_file_info *info)
{
	const struct ops *ops = fuse_req_userdata(request);

	(void)inode;
	namespace_close(ops->ns, (void *)(uintptr_t)info->fh);
	fuse_reply_err(request, 0);
}

/* ---- folders ------------------------------------------------------------- */

static int run_opendir(struct call *call, bool nowait)
{
	struct fuse_file_info info = { .flags = (int)call->offset };
	struct listing *listing;
	int error = namespace_open_listing(call->ops->ns, call->inode, nowait,
					   &listing);

	if (error == -EAGAIN && nowait)
		return error;
	if (error) {
		if (call_claim(call))
			fuse_reply_err(call->request, -error);
		return 0;
	}
	info.fh = (uintptr_t)listing;
	info.cache_readdir = info.keep_cache = listing_is_immutable(listing);
	if (!call_claim(call) || fuse_reply_open(call->request, &info))
		namespace_close_listing(call->ops->ns, listing);
	return 0;
}

static void op_opendir(fuse_req_t request, fuse_ino_t inode,
		       struct fuse_file_info *info)
{
	struct call call = call_make(request, inode, run_opendir);

	call.offset = (uint64_t)info->flags;
	call_start(&call, NULL);
}

/* Positions 0 and 1 are "." and ".."; entry n of the listing is n + 2. */
static int list(const struct call *call, bool nowait, uint64_t position,
		struct listed *listed)
{
	int error;

	if (position < 2) {
		memset(listed, 0, sizeof(*listed));
		strcpy(listed->name, position ? ".." : ".");
		listed->inode = position ? 0 : call->inode;
		listed->type = S_IFDIR;
		listed->next = position + 1;
		return 0;
	}
	error = listing_next(call->listing, position - 2, nowait, listed);
	listed->next += 2;
	return error;
}

/* One entry at the end of @size bytes; returns the bytes it needs. */
static size_t add_entry(const struct call *call, bool plus,
			const struct listed *listed, char *buffer, size_t size)
{
	/* The request may be gone, see call.c: libfuse has no use for it here.
	 * The number is what its own high-level API says for an unknown one. */
	uint64_t inode = listed->inode ? listed->inode : 0xffffffff;
	struct fuse_entry_param entry = { .generation = 0 };
	off_t next = (off_t)listed->next;

	entry.attr.st_ino = inode;
	entry.attr.st_mode = listed->type;
	if (!plus)
		return fuse_add_direntry(call->request, buffer, size,
					 listed->name, &entry.attr, next);
	if (listed->has_status) {
		entry.ino = inode;
		entry.attr = listed->status;
		entry.attr_timeout = entry.entry_timeout = TIMEOUT_CONST_S;
	}
	return fuse_add_direntry_plus(call->request, buffer, size,
				      listed->name, &entry, next);
}

static int run_list(struct call *call, bool nowait, bool plus)
{
	struct namespace *ns = call->ops->ns;
	char *buffer = malloc(call->size);
	uint64_t position = call->offset, held = 0;
	size_t used = 0, needed;
	struct live *live = NULL;
	struct listed listed;
	int error = buffer ? 0 : -ENOMEM;

	while (!error) {
		error = list(call, nowait, position, &listed);
		if (error)
			break;
		needed = add_entry(call, plus, &listed, buffer + used,
				   call->size - used);
		if (needed > call->size - used)
			break;
		used += needed;
		position = listed.next;
		if (plus && listed.has_status) {
			live = listed.live;
			nodes_hold(&ns->nodes, live);
			held++;
		}
	}
	if (error == -EAGAIN && nowait && used == 0) {
		free(buffer);
		return error;
	}
	/* What has been listed is an answer; the next call goes on there. */
	if (error && error != -ENOENT && used == 0) {
		if (call_claim(call))
			fuse_reply_err(call->request, -error);
	} else if (!call_claim(call) ||
		   fuse_reply_buf(call->request, buffer, used)) {
		while (held-- > 0)
			nodes_put_live(&ns->nodes, live);
	}
	free(buffer);
	return 0;
}

static int run_readdir(struct call *call, bool nowait)
{
	return run_list(call, nowait, false);
}

static int run_readdirplus(struct call *call, bool nowait)
{
	return run_list(call, nowait, true);
}

static void start_list(fuse_req_t request, fuse_ino_t inode, size_t size,
		       off_t offset, struct fuse_file_info *info, bool plus)
{
	struct call call = call_make(request, inode,
				     plus ? run_readdirplus : run_readdir);

	call.size = size;
	call.offset = (uint64_t)offset;
	call.listing = (void *)(uintptr_t)info->fh;
	call_start(&call, NULL);
}

static void op_readdir(fuse_req_t request, fuse_ino_t inode, size_t size,
		       off_t offset, struct fuse_file_info *info)
{
	start_list(request, inode, size, offset, info, false);
}

static void op_readdirplus(fuse_req_t request, fuse_ino_t inode, size_t size,
			   off_t offset, struct fuse_file_info *info)
{
	start_list(request, inode, size, offset, info, true);
}

static void op_releasedir(fuse_req_t request, fuse_ino_t inode,
			  struct fuse_file_info *info)
{
	const struct ops *ops = fuse_req_userdata(request);

	(void)inode;
	namespace_close_listing(ops->ns, (void *)(uintptr_t)info->fh);
	fuse_reply_err(request, 0);
}

/* ---- the session --------------------------------------------------------- */

static void op_init(void *context, struct fuse_conn_info *conn)
{
	const struct ops *ops = context;
	unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS |
			FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
			FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS;

	/* With it, the kernel waits for such a read whatever signal comes. */
	if (!ops->interruptible)
		want |= FUSE_CAP_ASYNC_DIO;
	conn->want = conn->capable & want;
	conn->max_read = LIMIT_READ_SIZE;
	conn->max_write = LIMIT_READ_SIZE;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	ops->ready(ops->ready_context);
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
