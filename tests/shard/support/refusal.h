/* SPDX-License-Identifier: Apache-2.0 */
/* How an input is refused: with which error, where, and why. */
#ifndef SUPPORT_REFUSAL_H
#define SUPPORT_REFUSAL_H

#include "shard/base/fault.h"
#include "shard/catalog/catalog.h"

/* @fault is that of @error, stands at @offset, and its reason holds the words
 * @reason. @what names the case in the message. */
void refusal_check(const char *what, const struct fault *fault, int error,
		   uint64_t offset, const char *reason);

/* catalog_check refuses @catalog, of @whole bytes, and says where and @reason. */
void refusal_catalog(const struct catalog *catalog, uint64_t whole,
		     const char *reason);

#endif
