/* SPDX-License-Identifier: Apache-2.0 */
/* A folder of a test's own. */
#ifndef SUPPORT_FOLDER_H
#define SUPPORT_FOLDER_H

#include <stddef.h>
#include <stdint.h>

struct test_folder {
	char path[64];
	int fd;
};

void folder_make(struct test_folder *folder);
/* With all that is in it. */
void folder_remove(struct test_folder *folder);

/* Make or truncate the file @name, and fill it. */
void folder_write(const struct test_folder *folder, const char *name,
		  const void *data, size_t size);
/* Change one byte of the file @name; its times change as by any write. */
void folder_poke(const struct test_folder *folder, const char *name,
		 uint64_t offset, unsigned char byte);
/* Descriptors that this process has open. */
unsigned folder_count_descriptors(void);

#endif
