/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree/open_stored.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct open_stored {
	struct open_file base;		/* first: passed as this */
	struct stored_file *stored;	/* owned; const, as are all */
	bool committed;
	char *name;			/* owned */
};

static struct open_stored *from_file(const struct open_file *file)
{
	return (struct open_stored *)(uintptr_t)file;
}

static int read_it(struct open_file *file, uint64_t offset, struct reply *reply)
{
	struct open_stored *s = from_file(file);

	return s->stored->read(s->stored, offset, s->committed, reply);
}

static int get_status(struct open_file *file, bool nowait,
		      struct stat *ret_status)
{
	struct open_stored *s = from_file(file);

	return nowait && !file->table->ns->store->in_memory ? -EAGAIN :
	       s->stored->status(s->stored, s->committed, ret_status);
}

static void describe(const struct open_file *file, char *text, size_t size)
{
	snprintf(text, size, "%s", from_file(file)->name);
}

static void close_it(struct open_file *file)
{
	struct open_stored *s = from_file(file);

	s->stored->close(s->stored);
	inode_table_put(&file->table->ns->inodes, file->number);
	free(s->name);
	free(s);
}

static const struct open_file_ops ops = {
	.read = read_it, .status = get_status, .describe = describe,
	.close = close_it,
};

int open_stored(const struct stored_opening *opening,
		struct open_file **ret_file)
{
	struct open_stored *s = calloc(1, sizeof(*s));

	if (s)
		s->name = strdup(opening->name);
	if (!s || !s->name) {
		opening->stored->close(opening->stored);
		free(s);
		return -ENOMEM;
	}
	s->stored = opening->stored;
	s->committed = s->base.keep_cache = opening->committed;
	open_file_init(&s->base, &opening->ns->opens, &ops, opening->number);
	/* The list that it is in is the inode's. */
	inode_table_hold(&opening->ns->inodes, opening->number);
	open_file_enlist(&s->base, opening->beside);
	*ret_file = &s->base;
	return 0;
}
