/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives as torch.save writes them (APPNOTE.TXT 6.3.10), and where in them
 * everything stands, for tests that damage it.
 */
#ifndef SUPPORT_ARCHIVE_OUT_H
#define SUPPORT_ARCHIVE_OUT_H

#include "support/put.h"

#include <stdbool.h>

struct archive {
	/* Set before the first record. */
	bool wide;		/* ZIP64 sizes and offsets in every record */
	bool narrow;		/* no ZIP64 end record */
	bool plain;		/* no data descriptors */
	bool checked;		/* checksums; else 0, which says none */
	const char *comment;	/* or NULL */
	/* The rest is set by the functions below. */
	struct array out, directory;
	unsigned count;
	uint64_t directory_offset, end64, locator, end;
};

struct archive_record {
	uint64_t header, payload;	/* offsets in the archive */
	uint64_t entry;			/* in the directory */
};

/* @name with its folder: "archive/data.pkl". */
struct archive_record archive_add(struct archive *archive, const char *name,
				  const void *data, size_t size);
/* Write the directory and the end records; then `out` is the archive. */
void archive_end(struct archive *archive);
void archive_free(struct archive *archive);

#endif
