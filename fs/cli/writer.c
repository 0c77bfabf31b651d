/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files are cut into units of a read's size, which the threads take in
 * order:
 *
 *	file 0                    file 1   file 2
 *	| unit 0 | unit 1 | unit 2 | unit 3 | unit 4 | unit 5 | ...
 *
 * A file is opened with its first unit and closed with its last, so that never
 * more are open than there are threads, and one.
 */
#include "fs/cli/writer.h"

#include "fs/cli/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* More files than that are cheaper to bring to the disk all at once. */
enum { SYNC_FILES_MAX = 64 };

struct written_file {
	uint64_t first;		/* unit; const */
	uint64_t size;		/* bytes; const */
	uint64_t left;		/* units that are not done; guarded by lock,
				 * like all below */
	struct virtual_file *content; /* a reference, while it is open */
	int fd;			/* owned; -1: not open */
};

struct writer_run {
	const struct writer *writer;
	struct written_file *files; /* owned */
	uint64_t units;
	pthread_mutex_t lock;
	struct writer_failure *failure;	/* guarded by lock */
};

/* What says more about the damage is kept: others may fail because of it. */
static int fail(struct writer_run *w, int error, uint64_t file,
		const struct reply *reply)
{
	struct writer_failure *failure = w->failure;

	pthread_mutex_lock(&w->lock);
	if (!failure->error ||
	    (reply && reply->fault.error && !failure->fault.error)) {
		failure->error = error;
		failure->file = file;
		failure->reading = reply;
		if (reply && reply->fault.error) {
			failure->fault = reply->fault;
			failure->fault_file = reply->fault_file;
		}
	}
	pthread_mutex_unlock(&w->lock);
	return error;
}

/* ---- files that are open ------------------------------------------------- */

static int open_file(struct writer_run *w, uint64_t index,
		     struct written_file *file)
{
	const struct writer *writer = w->writer;
	char name[NAME_MAX + 1];
	int error = writer->open(writer->context, index, &file->content, name);

	if (error)
		return error;
	error = output_open(writer->output, name, &file->fd);
	if (error) {
		virtual_file_put(file->content);
		file->content = NULL;
	}
	return error;
}

static int close_file(struct written_file *file, bool sync)
{
	int error = sync && fsync(file->fd) < 0 ? -errno : 0;

	virtual_file_put(file->content);
	/* Some file systems say only here that a write has failed. */
	if (close(file->fd) < 0 && !error && errno != EINTR)
		error = -errno;
	file->fd = -1;
	return error;
}

static int get_file(struct writer_run *w, uint64_t index)
{
	struct written_file *file = &w->files[index];
	int error = 0;

	pthread_mutex_lock(&w->lock);
	if (file->fd < 0)
		error = open_file(w, index, file);
	pthread_mutex_unlock(&w->lock);
	return error;
}

static int put_file(struct writer_run *w, uint64_t index)
{
	struct written_file *file = &w->files[index];
	bool last;

	pthread_mutex_lock(&w->lock);
	last = --file->left == 0;
	pthread_mutex_unlock(&w->lock);
	return last ? close_file(file, w->writer->count <= SYNC_FILES_MAX) : 0;
}

/* ---- a unit -------------------------------------------------------------- */

static int write_reply(int fd, const struct reply *reply, uint64_t offset)
{
	uint64_t done = 0;

	while (done < reply->size) {
		ssize_t size = pwrite(fd, reply->data + done,
				      reply->size - done,
				      (off_t)(offset + done));

		if (size < 0 && errno != EINTR)
			return -errno;
		if (size > 0)
			done += (uint64_t)size;
	}
	return 0;
}

static int write_part(struct writer_run *w, struct reply *reply, uint64_t index,
		      uint64_t offset, uint64_t size)
{
	const struct written_file *file = &w->files[index];
	struct source *source = checkpoint_source(w->writer->checkpoint);
	int error = reply_begin(reply, NULL, size);

	if (!error)
		error = virtual_file_read(file->content, source, offset, reply);
	if (error)
		return fail(w, error, index, reply);
	error = write_reply(file->fd, reply, offset);
	if (error)
		return fail(w, error, index, NULL);
	/* The disk may begin at once. */
	sync_file_range(file->fd, (off_t)offset, (off_t)size,
			SYNC_FILE_RANGE_WRITE);
	return 0;
}

static uint64_t find_file(const struct writer_run *w, uint64_t unit)
{
	uint64_t low = 0, high = w->writer->count;

	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (w->files[middle].first <= unit)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static int write_unit(void *context, unsigned thread, uint64_t unit)
{
	struct writer_run *w = context;
	uint64_t index = find_file(w, unit);
	const struct written_file *file = &w->files[index];
	uint64_t offset = (unit - file->first) * LIMIT_READ_SIZE;
	uint64_t size = file->size - offset;
	struct reply *reply = reply_of_thread();
	int error;

	(void)thread;
	if (size > LIMIT_READ_SIZE)
		size = LIMIT_READ_SIZE;
	error = reply ? get_file(w, index) : -ENOMEM;
	if (error)
		return fail(w, error, index, NULL);
	if (size > 0)
		error = write_part(w, reply, index, offset, size);
	if (error)
		return error;
	tool_progress_add(size);
	error = put_file(w, index);
	return error ? fail(w, error, index, NULL) : 0;
}

/* ---- all of it ----------------------------------------------------------- */

static int make_file(struct writer_run *w, uint64_t index)
{
	const struct writer *writer = w->writer;
	struct written_file *file = &w->files[index];
	char name[NAME_MAX + 1];
	struct virtual_file *content;
	int error = writer->open(writer->context, index, &content, name);

	if (error)
		return error;
	file->fd = -1;
	file->first = w->units;
	file->size = virtual_file_size(content);
	/* An empty one has a unit, too. */
	file->left = file->size / LIMIT_READ_SIZE +
		     (file->size % LIMIT_READ_SIZE > 0 || file->size == 0);
	w->units += file->left;
	virtual_file_put(content);
	return output_make(writer->output, name, file->size);
}

static int make_files(struct writer_run *w, uint64_t *ret_size)
{
	uint64_t i;
	int error = 0;

	*ret_size = 0;
	for (i = 0; i < w->writer->count && !error; i++) {
		error = tool_interrupted() ? -EINTR : make_file(w, i);
		*ret_size += w->files[i].size;
		if (error)
			fail(w, error, i, NULL);
	}
	return error;
}

static int write_files(struct writer_run *w, uint64_t size)
{
	struct tool_job job = {
		.work = write_unit, .context = w, .count = w->units,
	};
	uint64_t i;
	int error;

	tool_progress_begin(size);
	error = tool_work(&job);
	tool_progress_end();
	for (i = 0; i < w->writer->count; i++)
		if (w->files[i].fd >= 0)
			close_file(&w->files[i], false);
	return error;
}

int writer_run(const struct writer *writer, uint64_t *ret_size,
	       struct writer_failure *ret_failure)
{
	struct writer_run w = {
		.writer = writer, .failure = ret_failure,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	int error;

	memset(ret_failure, 0, sizeof(*ret_failure));
	w.files = calloc(writer->count + 1, sizeof(*w.files));
	error = w.files ? make_files(&w, ret_size) :
			  fail(&w, -ENOMEM, 0, NULL);
	if (!error)
		error = write_files(&w, *ret_size);
	if (!error && writer->count > SYNC_FILES_MAX) {
		error = output_sync(writer->output);
		if (error)
			fail(&w, error, 0, NULL);
	}
	free(w.files);
	return error == -EINTR ? error : ret_failure->error;
}
