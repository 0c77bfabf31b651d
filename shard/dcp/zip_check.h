/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive as a whole: what stands in it twice must say the same twice, and
 * in what PyTorch wrote every byte belongs to something. Payloads are not
 * read, and their checksums not computed.
 *
 * Archives of other tools are laid out as they like: between and around
 * records, in extra fields and in comments, anything may stand.
 *
 * Sources: APPNOTE.TXT 6.3.10; caffe2/serialize/inline_container.cc, getPadding
 * and getRecordOffsetNoRead; miniz.
 */
#ifndef SHARD_DCP_ZIP_CHECK_H
#define SHARD_DCP_ZIP_CHECK_H

#include "shard/dcp/zip.h"

#include <stdbool.h>

/* What is wrong with an archive. */
enum zip_flaw {
	ZIP_FLAW_HEADER,	/* a local header or a data descriptor */
	ZIP_FLAW_STRUCTURE,	/* the directory, the end, or the order */
	ZIP_FLAW_UNREAD,	/* nothing: a form that is not read */
};

struct zip_sink {
	/* @fault has an offset from the start of the archive, and the name of
	 * a record where it is about one. */
	void (*found)(void *context, enum zip_flaw flaw,
		      const struct fault *fault);
	void *context;
};

/* The records whose payload is where it should be, none over another, and in
 * the order of their payloads. */
struct zip_index {
	struct zip_record *records;	/* owned */
	uint64_t count;
	bool has_checksums;	/* PyTorch can be told to compute none; it then
				 * writes 0 for all of them */
};

/*
 * 0 when all of the archive could be looked at, and @sink was told what is
 * wrong with it; or what reading gave, or -ENOMEM. The caller finishes the
 * index on 0. Its records borrow their names from @zip.
 */
int zip_check(const struct zip *zip, const struct zip_sink *sink,
	      struct zip_index *ret_index);
void zip_index_finish(struct zip_index *index);

#endif
