/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appending to an array, for inputs that tests build: numbers, and the
 * opcodes of pickles (CPython, Lib/pickletools.py). Running out of memory
 * fails the test.
 */
#ifndef SUPPORT_PUT_H
#define SUPPORT_PUT_H

#include "shard/base/array.h"

#include <stdint.h>

void put_bytes(struct array *out, const void *data, size_t size);
void put_u8(struct array *out, unsigned number);
void put_u16(struct array *out, unsigned number);
void put_u32(struct array *out, uint64_t number);
void put_u64(struct array *out, uint64_t number);

/* PROTO, and a string literal's bytes without its NUL. */
void put_proto(struct array *out, unsigned protocol);
#define PUT(out, literal) put_bytes(out, literal, sizeof(literal) - 1)

/* A string, with the opcode that its length asks for. */
void put_text(struct array *out, const char *text);
void put_text_size(struct array *out, const char *text, size_t size);
/* A number, with the opcode that its size asks for. */
void put_number(struct array *out, int64_t number);
/* GLOBAL. */
void put_global(struct array *out, const char *module, const char *name);
/* A tuple of @count numbers. */
void put_tuple(struct array *out, const uint64_t *numbers, unsigned count);
/* torch.Size of them. */
void put_size(struct array *out, const uint64_t *numbers, unsigned count);

#endif
