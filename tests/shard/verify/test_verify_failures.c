/* SPDX-License-Identifier: Apache-2.0 */
/* Each call that can fail does so in turn while a checkpoint is verified: it
 * is an error or a finding, nothing leaks, and never is it all well. */
#include "support/test.h"
#include "support/fail.h"
#include "support/folder.h"
#include "support/opening.h"
#include "support/sample.h"

#include "shard/verify/verify.h"

#include <errno.h>
#include <string.h>

struct heard {
	unsigned faults, io_faults;
};

static void hear_fault(void *context, const struct verify_fault *fault)
{
	struct heard *heard = context;

	heard->faults++;
	heard->io_faults += fault->kind == VERIFY_IO;
}

static void hear_note(void *context, const struct verify_note *note)
{
	(void)context;
	(void)note;
}

static void hear_progress(void *context, uint64_t size)
{
	(void)context;
	(void)size;
}

/* With the @n-th call of @groups failing; 0: none. */
static int run(const struct checkpoint *checkpoint, unsigned groups,
	       unsigned n, struct heard *heard, struct verify_summary *summary)
{
	const struct verify_sink sink = {
		hear_fault, hear_note, hear_progress, heard
	};
	struct verify_buffer *buffer = verify_buffer_create();
	struct verify *verify;
	uint64_t i;
	int error;

	assert_non_null(buffer);
	memset(heard, 0, sizeof(*heard));
	memset(summary, 0, sizeof(*summary));
	if (n > 0)
		fail_arm(groups, n);
	error = verify_create(checkpoint, false, &sink, &verify);
	if (!error) {
		for (i = 0; i < verify_unit_count(verify) && !error; i++)
			error = verify_unit(verify, buffer, i);
		verify_finish(verify, summary);
		verify_destroy(verify);
	}
	verify_buffer_destroy(buffer);
	return error;
}

static struct checkpoint *open_folder(const struct test_folder *folder)
{
	const struct checkpoint_options options = { .cache = NULL };
	static struct checkpoint_report report;
	struct checkpoint *checkpoint;

	assert_int_equal(opening_checkpoint(folder->fd, &options, &checkpoint,
					 &report), 0);
	return checkpoint;
}

/* Of each call in turn. Returns how many there are. */
static unsigned fail_each(const struct test_folder *folder, unsigned groups,
			  int expected, bool harmless)
{
	unsigned n, descriptors = folder_count_descriptors();
	struct verify_summary summary;
	struct heard heard;

	for (n = 1;; n++) {
		/* Files are opened anew. */
		struct checkpoint *checkpoint = open_folder(folder);
		int error = run(checkpoint, groups, n, &heard, &summary);
		bool hit = fail_disarm();

		if (hit && !harmless && error != expected &&
		    !(error == 0 && heard.io_faults > 0))
			fail_msg("call %u, %s: %d, %u faults", n, fail_name(),
				 error, heard.faults);
		/* Its own files are good again, and so is what it says. */
		if (hit && error != -ESTALE)
			assert_int_equal(run(checkpoint, 0, 0, &heard,
					     &summary), 0);
		if (error != -ESTALE) {
			assert_int_equal(heard.faults, 0);
			assert_int_equal(summary.not_recorded, 2);
		}
		opening_close(checkpoint);
		if (!hit)
			break;
	}
	assert_int_equal(folder_count_descriptors(), descriptors);
	return n - 1;
}

static void each_call_in_turn(void **state)
{
	struct test_folder folder;

	(void)state;
	folder_make(&folder);
	sample_write(&folder, false, 3);
	assert_true(fail_each(&folder, FAIL_MEMORY, -ENOMEM, false) > 20);
	assert_true(fail_each(&folder, FAIL_READ, -EIO, false) >= 4);
	assert_true(fail_each(&folder, FAIL_OPEN, -EMFILE, false) >= 2);
	/* A file that cannot be asked may have changed. */
	assert_true(fail_each(&folder, FAIL_STATUS, -ESTALE, false) >= 4);
	folder_remove(&folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_call_in_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
