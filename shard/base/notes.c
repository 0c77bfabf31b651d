/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/base/notes.h"

#include <stdarg.h>
#include <stdio.h>

void notes_add(struct notes *notes, const char *format, ...)
{
	va_list args;
	char *p;

	if (notes->count == LIMIT_NOTES) {
		notes->dropped++;
		return;
	}
	p = notes->line[notes->count++];
	va_start(args, format);
	vsnprintf(p, sizeof(notes->line[0]), format, args);
	va_end(args);
	for (; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
}
