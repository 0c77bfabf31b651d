/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/dcp/pickle_layout.h"

#include "shard/base/bytes.h"
#include "shard/base/limits.h"

#include <string.h>

int64_t pickle_decode_long(const unsigned char *p, unsigned size)
{
	uint64_t number = 0;
	unsigned i;

	for (i = 0; i < size; i++)
		number |= (uint64_t)p[i] << 8 * i;
	if (size > 0 && size < 8 && p[size - 1] & 0x80)
		number |= ~(uint64_t)0 << 8 * size;
	return (int64_t)number;
}

uint64_t pickle_items_word(const struct pickle *p, uint64_t bits)
{
	switch (pickle_kind(p, (struct pickle_value){ bits })) {
	case PICKLE_LIST:
	case PICKLE_SET:
	case PICKLE_DICT:
		return (bits >> 3) + WORD_ITEMS;
	case PICKLE_CALL:
	case PICKLE_OBJECT:
		return (bits >> 3) + WORD_CALL_ITEMS;
	default:
		return 0;
	}
}

enum pickle_kind pickle_kind(const struct pickle *pickle,
			     struct pickle_value value)
{
	switch (pickle_tag(value.bits)) {
	case TAG_CONST:
		switch (value.bits >> 3) {
		case CONST_EMPTY_TUPLE:
			return PICKLE_TUPLE;
		case CONST_FALSE:
		case CONST_TRUE:
			return PICKLE_BOOL;
		default:
			return PICKLE_NONE;
		}
	case TAG_INT:
	case TAG_LONG:
		return PICKLE_INT;
	case TAG_STRING:
		return PICKLE_STRING;
	case TAG_BYTES:
		return PICKLE_BYTES;
	case TAG_FLOAT:
		return PICKLE_FLOAT;
	case TAG_GLOBAL:
		return PICKLE_SYMBOL;
	case TAG_NODE:
		break;
	}
	return (enum pickle_kind)(pickle->arena[value.bits >> 3] & 15);
}

uint64_t pickle_offset(const struct pickle *pickle, struct pickle_value value)
{
	switch (pickle_tag(value.bits)) {
	case TAG_CONST:
	case TAG_INT:
		return 0;
	case TAG_NODE:
		return pickle->arena[value.bits >> 3] >> 4;
	default:
		return value.bits >> 3;
	}
}

struct pickle_value pickle_none(void)
{
	return (struct pickle_value){ pickle_make(TAG_CONST, CONST_NONE) };
}

bool pickle_int(const struct pickle *pickle, struct pickle_value value,
		int64_t *ret_number)
{
	const unsigned char *p;

	if (pickle_tag(value.bits) == TAG_INT) {
		*ret_number = (int64_t)value.bits >> 3;
		return true;
	}
	if (pickle_tag(value.bits) != TAG_LONG)
		return false;
	p = pickle->data + (value.bits >> 3) + 1;
	if (*p > 8)
		return false;
	*ret_number = pickle_decode_long(p + 1, *p);
	return true;
}

bool pickle_bool(struct pickle_value value, bool *ret_bool)
{
	if (pickle_tag(value.bits) != TAG_CONST ||
	    (value.bits >> 3 != CONST_TRUE && value.bits >> 3 != CONST_FALSE))
		return false;
	*ret_bool = value.bits >> 3 == CONST_TRUE;
	return true;
}

bool pickle_float(const struct pickle *pickle, struct pickle_value value,
		  double *ret_number)
{
	uint64_t bits;

	if (pickle_tag(value.bits) != TAG_FLOAT)
		return false;
	bits = bytes_u64be(pickle->data + (value.bits >> 3) + 1);
	memcpy(ret_number, &bits, sizeof(bits));
	return true;
}

bool pickle_string(const struct pickle *pickle, struct pickle_value value,
		   const char **ret_string, uint64_t *ret_size)
{
	const unsigned char *p;

	if (pickle_tag(value.bits) != TAG_STRING)
		return false;
	p = pickle->data + (value.bits >> 3);
	switch (*p) {
	case 0x8c:
		*ret_size = p[1];
		*ret_string = (const char *)p + 2;
		break;
	case 'X':
		*ret_size = bytes_u32le(p + 1);
		*ret_string = (const char *)p + 5;
		break;
	default:
		*ret_size = bytes_u64le(p + 1);
		*ret_string = (const char *)p + 9;
	}
	return true;
}

bool pickle_symbol(const struct pickle *pickle, struct pickle_value value,
		   struct pickle_symbol *ret_symbol)
{
	const uint64_t *words;
	const char *p, *end;

	if (pickle_tag(value.bits) == TAG_GLOBAL) {
		p = (const char *)pickle->data + (value.bits >> 3) + 1;
		end = rawmemchr(p, '\n');
		ret_symbol->module = p;
		ret_symbol->module_size = (uint64_t)(end - p);
		p = end + 1;
		end = rawmemchr(p, '\n');
		ret_symbol->name = p;
		ret_symbol->name_size = (uint64_t)(end - p);
		return true;
	}
	if (pickle_kind(pickle, value) != PICKLE_SYMBOL)
		return false;
	words = pickle->arena + (value.bits >> 3);
	return pickle_string(pickle, (struct pickle_value){ words[1] },
			     &ret_symbol->module, &ret_symbol->module_size) &&
	       pickle_string(pickle, (struct pickle_value){ words[2] },
			     &ret_symbol->name, &ret_symbol->name_size);
}

bool pickle_symbol_is(const struct pickle *pickle, struct pickle_value value,
		      const char *name)
{
	struct pickle_symbol symbol;

	return pickle_symbol(pickle, value, &symbol) &&
	       symbol.name_size == strlen(name) &&
	       memcmp(symbol.name, name, symbol.name_size) == 0;
}

bool pickle_tuple(const struct pickle *pickle, struct pickle_value value,
		  const struct pickle_value **ret_items, uint64_t *ret_count)
{
	static const struct pickle_value none;
	const uint64_t *words;

	if (value.bits == pickle_make(TAG_CONST, CONST_EMPTY_TUPLE)) {
		*ret_items = &none;
		*ret_count = 0;
		return true;
	}
	if (pickle_kind(pickle, value) != PICKLE_TUPLE)
		return false;
	words = pickle->arena + (value.bits >> 3);
	*ret_count = words[1];
	*ret_items = (const struct pickle_value *)(const void *)(words + 2);
	return true;
}

static struct pickle_value call_word(const struct pickle *pickle,
				     struct pickle_value value, unsigned word)
{
	switch (pickle_kind(pickle, value)) {
	case PICKLE_CALL:
	case PICKLE_OBJECT:
	case PICKLE_PERSID:
		return (struct pickle_value){
			pickle->arena[(value.bits >> 3) + word] };
	default:
		return pickle_none();
	}
}

struct pickle_value pickle_callable(const struct pickle *pickle,
				    struct pickle_value value)
{
	return call_word(pickle, value, WORD_CALLABLE);
}

struct pickle_value pickle_args(const struct pickle *pickle,
				struct pickle_value value)
{
	return call_word(pickle, value, WORD_ARGS);
}

struct pickle_value pickle_state(const struct pickle *pickle,
				 struct pickle_value value)
{
	return call_word(pickle, value, WORD_STATE);
}

bool pickle_get(const struct pickle *pickle, struct pickle_value dict,
		const char *key, struct pickle_value *ret_value)
{
	struct pickle_items items = pickle_items(pickle, dict);
	struct pickle_value item_key, value;
	size_t size = strlen(key);
	bool found = false;
	unsigned looked;

	for (looked = 0; looked < LIMIT_ATTRIBUTES; looked++) {
		const char *string;
		uint64_t string_size;

		if (!pickle_items_next(&items, &item_key, &value))
			break;
		if (pickle_string(pickle, item_key, &string, &string_size) &&
		    string_size == size && memcmp(string, key, size) == 0) {
			*ret_value = value;
			found = true;
		}
	}
	return found;
}

struct pickle_items pickle_items(const struct pickle *pickle,
				 struct pickle_value value)
{
	struct pickle_items items = { .pickle = pickle, .step = 2 };
	enum pickle_kind kind = pickle_kind(pickle, value);
	uint64_t word = pickle_items_word(pickle, value.bits);

	if (kind == PICKLE_LIST || kind == PICKLE_SET)
		items.step = 1;
	if (word)
		items.batch = pickle->arena[word];
	return items;
}

bool pickle_items_next(struct pickle_items *items,
		       struct pickle_value *ret_key,
		       struct pickle_value *ret_value)
{
	const uint64_t *arena = items->pickle->arena;

	/* Items set on a call are pairs unless APPENDS made an odd number of
	 * them, as for a deque; whoever asks for pairs sees whole ones. */
	while (items->batch && items->index + items->step >
	       arena[items->batch + 1]) {
		items->batch = arena[items->batch];
		items->index = 0;
	}
	if (!items->batch)
		return false;
	arena += items->batch + 2 + items->index;
	if (items->step == 2)
		ret_key->bits = arena[0];
	ret_value->bits = arena[items->step - 1];
	items->index += items->step;
	return true;
}
