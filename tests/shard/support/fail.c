/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fail.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

static unsigned armed, countdown;
static bool hit;
static const char *name = "";

void fail_arm(unsigned groups, unsigned n)
{
	armed = groups;
	countdown = n;
	hit = false;
}

bool fail_disarm(void)
{
	armed = 0;
	return hit;
}

const char *fail_name(void)
{
	return name;
}

/* Is it this call's turn? */
static bool fails(enum fail_group group, int error, const char *call)
{
	if (!(armed & (unsigned)group) || --countdown > 0)
		return false;
	armed = 0;
	hit = true;
	name = call;
	errno = error;
	return true;
}

/* A wrapper that hands its arguments on. */
#define WRAP(group, error, failure, type, call, parameters, arguments) \
	type __real_##call parameters; \
	type __wrap_##call parameters; \
	type __wrap_##call parameters \
	{ \
		if (fails(group, error, #call)) \
			return failure; \
		return __real_##call arguments; \
	}

WRAP(FAIL_MEMORY, ENOMEM, NULL, void *, malloc, (size_t size), (size))
WRAP(FAIL_MEMORY, ENOMEM, NULL, void *, aligned_alloc,
     (size_t alignment, size_t size), (alignment, size))
WRAP(FAIL_MEMORY, ENOMEM, NULL, void *, calloc, (size_t count, size_t size),
     (count, size))
WRAP(FAIL_MEMORY, ENOMEM, NULL, void *, realloc, (void *data, size_t size),
     (data, size))
WRAP(FAIL_MEMORY, ENOMEM, NULL, char *, strdup, (const char *text), (text))
WRAP(FAIL_MEMORY, ENOMEM, NULL, char *, strndup,
     (const char *text, size_t size), (text, size))
WRAP(FAIL_MEMORY, ENOMEM, NULL, DIR *, fdopendir, (int fd), (fd))
WRAP(FAIL_READ, EIO, -1, ssize_t, pread64,
     (int fd, void *data, size_t size, off_t offset),
     (fd, data, size, offset))
WRAP(FAIL_READ, EIO, -1, ssize_t, preadv64v2,
     (int fd, const struct iovec *vectors, int count, off_t offset, int flags),
     (fd, vectors, count, offset, flags))
WRAP(FAIL_READ, EIO, NULL, struct dirent *, readdir64, (DIR *stream),
     (stream))
WRAP(FAIL_STATUS, EIO, -1, int, fstat64, (int fd, struct stat *status),
     (fd, status))
WRAP(FAIL_STATUS, EIO, -1, int, fstatat64,
     (int fd, const char *path, struct stat *status, int flags),
     (fd, path, status, flags))

struct json_object;
struct json_tokener;

#define WRAP_JSON(type, call, failure, parameters, arguments) \
	WRAP(FAIL_JSON, ENOMEM, failure, type, call, parameters, arguments)
#define WRAP_NEW(call, parameters, arguments) \
	WRAP_JSON(struct json_object *, call, NULL, parameters, arguments)

WRAP_NEW(json_object_new_object, (void), ())
WRAP_NEW(json_object_new_array, (void), ())
WRAP_NEW(json_object_new_boolean, (int value), (value))
WRAP_NEW(json_object_new_int64, (int64_t value), (value))
WRAP_NEW(json_object_new_uint64, (uint64_t value), (value))
WRAP_NEW(json_object_new_double_s, (double value, const char *text),
	 (value, text))
WRAP_NEW(json_object_new_string, (const char *text), (text))
WRAP_NEW(json_object_new_string_len, (const char *text, int size),
	 (text, size))
WRAP_NEW(json_tokener_parse_ex,
	 (struct json_tokener *tokener, const char *text, int size),
	 (tokener, text, size))
WRAP_JSON(struct json_tokener *, json_tokener_new_ex, NULL, (int depth),
	  (depth))
WRAP_JSON(int, json_object_array_add, -1,
	  (struct json_object *array, struct json_object *value),
	  (array, value))
WRAP_JSON(int, json_object_object_add, -1,
	  (struct json_object *object, const char *key,
	   struct json_object *value), (object, key, value))
WRAP_JSON(const char *, json_object_to_json_string_length, NULL,
	  (struct json_object *object, int flags, size_t *size),
	  (object, flags, size))

void *__real_mmap64(void *address, size_t size, int protection, int flags,
		    int fd, off_t offset);
void *__wrap_mmap64(void *address, size_t size, int protection, int flags,
		    int fd, off_t offset);

void *__wrap_mmap64(void *address, size_t size, int protection, int flags,
		    int fd, off_t offset)
{
	if (fails(FAIL_MEMORY, ENOMEM, "mmap"))
		return MAP_FAILED;
	return __real_mmap64(address, size, protection, flags, fd, offset);
}

/* The calls with a variable number of arguments, of which ours pass at most
 * one, and openat2 four. */
#define WRAP_OPEN(call, parameters, last, arguments) \
	int __real_##call parameters; \
	int __wrap_##call parameters; \
	int __wrap_##call parameters \
	{ \
		va_list list; \
		int more; \
		if (fails(FAIL_OPEN, EMFILE, #call)) \
			return -1; \
		va_start(list, last); \
		more = va_arg(list, int); \
		va_end(list); \
		return __real_##call arguments; \
	}

WRAP_OPEN(open64, (const char *path, int flags, ...), flags,
	  (path, flags, more))
WRAP_OPEN(openat64, (int fd, const char *path, int flags, ...), flags,
	  (fd, path, flags, more))
WRAP_OPEN(fcntl64, (int fd, int command, ...), command,
	  (fd, command, more))

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

long __wrap_syscall(long number, ...)
{
	long a, b, c, d;
	va_list list;

	if (fails(FAIL_OPEN, EMFILE, "openat2"))
		return -1;
	va_start(list, number);
	a = va_arg(list, long);
	b = va_arg(list, long);
	c = va_arg(list, long);
	d = va_arg(list, long);
	va_end(list);
	return __real_syscall(number, a, b, c, d);
}
