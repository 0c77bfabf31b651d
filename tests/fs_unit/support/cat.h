/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files and attributes of a mount by their paths, as cat and getfattr
 * print them. */
#ifndef SUPPORT_CAT_H
#define SUPPORT_CAT_H

#include "support/kernel.h"

/* All of the file @path: opened, and read to its end. 0 with its bytes, behind
 * which stands a '\0', and which the caller frees; or the first -errno. */
int cat_file(struct kernel *kernel, const char *path, char **ret_data,
	     size_t *ret_size);
/* The same, for what it says alone. */
int cat_error(struct kernel *kernel, const char *path);

/* The file @path is there and holds these bytes, and no more; its size is said
 * so. */
void cat_check(struct kernel *kernel, const char *path, const void *data,
	       size_t size);
void cat_check_text(struct kernel *kernel, const char *path,
		    const char *text);
/* It holds bytes [@begin, @begin + @size) of the tensor "w" of sample.h. */
void cat_check_sample(struct kernel *kernel, const char *path,
		      unsigned char first, unsigned begin, unsigned size);

/* The names in the folder @path are these, sorted, each with a line end. */
void cat_check_list(struct kernel *kernel, const char *path,
		    const char *names);

/* The attribute @name of @path, terminated; the caller frees it. It is
 * there. */
char *cat_attribute(struct kernel *kernel, const char *path,
		    const char *name);

#endif
