/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/diff_print.h"

#include "fs/cli/columns.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const states[PAIR_STATES] = {
	[PAIR_EQUAL] = "equal", [PAIR_CHANGED] = "changed",
	[PAIR_ADDED] = "added", [PAIR_REMOVED] = "removed",
	[PAIR_DTYPE] = "dtype", [PAIR_SHAPE] = "shape",
	[PAIR_UNREADABLE] = "unreadable",
};

/* Characters of a column at most: what is longer moves the rest of its line
 * to the right. */
enum { NAME_WIDTH_MAX = 60, STATE_WIDTH = 10 };

struct diff_printer {
	const struct pairs *pairs;
	bool json;
	struct array line, cell;	/* owned; at hand */
	size_t name_width;		/* characters */
	uint64_t counts[PAIR_STATES];
};

/* ---- figures ------------------------------------------------------------- */

/* [i,j] of the first element that differs. */
static int print_first(const struct diff_printer *p, const struct pair *pair,
		       struct array *out)
{
	const struct catalog *catalog =
		p->pairs->checkpoints[PAIR_LEFT]->catalog;
	uint64_t first = pair->comparison.first, index[LIMIT_NDIM];
	struct box shape;
	unsigned axis;
	int error = tool_print(out, "[");

	catalog_shape(catalog, pair_entry(p->pairs, pair, PAIR_LEFT),
		      &shape);
	for (axis = shape.ndim; axis > 0; axis--) {
		index[axis - 1] = first % shape.size[axis - 1];
		first /= shape.size[axis - 1];
	}
	for (axis = 0; axis < shape.ndim && !error; axis++)
		error = tool_print(out, "%s%" PRIu64, axis > 0 ? "," : "",
				   index[axis]);
	return error ? error : tool_print(out, "]");
}

static int print_figures(const struct diff_printer *p, const struct pair *pair,
			 struct array *out)
{
	const struct comparison *c = &pair->comparison;
	int error = tool_print(out, "  max %.6g, relative %.6g", c->most,
			       compare_relative(c));

	if (!error && c->first != COMPARE_NONE) {
		error = tool_print(out, ", first ");
		if (!error)
			error = print_first(p, pair, out);
	}
	if (!error && c->infinite > 0)
		error = tool_print(out, ", %" PRIu64 " infinite", c->infinite);
	if (!error && c->left_nans + c->right_nans > 0)
		error = tool_print(out, ", NaN %" PRIu64 " and %" PRIu64,
				   c->left_nans, c->right_nans);
	return error;
}

static int print_json_figures(const struct diff_printer *p,
			      const struct pair *pair, struct array *out)
{
	const struct comparison *c = &pair->comparison;
	int error = tool_print(out, ",\"max_abs\":");

	if (!error)
		error = columns_json_double(c->most, out);
	if (!error)
		error = tool_print(out, ",\"relative_l2\":");
	if (!error)
		error = columns_json_double(compare_relative(c), out);
	if (!error)
		error = tool_print(out, ",\"first\":");
	if (!error && c->first != COMPARE_NONE)
		error = print_first(p, pair, out);
	else if (!error)
		error = tool_print(out, "null");
	return error ? error : tool_print(out, ",\"infinite\":%" PRIu64
					  ",\"nan_a\":%" PRIu64
					  ",\"nan_b\":%" PRIu64, c->infinite,
					  c->left_nans, c->right_nans);
}

/* ---- lines --------------------------------------------------------------- */

/* The side that has the name. */
static enum pair_side named_side(const struct pair *pair)
{
	return pair->entries[PAIR_LEFT] == PAIR_NONE ? PAIR_RIGHT : PAIR_LEFT;
}

static const struct catalog *catalog_of(const struct diff_printer *p,
					enum pair_side side)
{
	return p->pairs->checkpoints[side]->catalog;
}

/* "F32 [4,4]" */
static int print_type(const struct diff_printer *p, const struct pair *pair,
		      enum pair_side side, struct array *out)
{
	const struct catalog_entry *entry =
		pair_entry(p->pairs, pair, side);
	int error = columns_type(catalog_of(p, side), entry, out);

	if (error || entry->flags & CATALOG_OBJECT)
		return error;
	error = tool_print(out, " ");
	return error ? error :
	       columns_shape(catalog_of(p, side), entry, out);
}

static int print_line(struct diff_printer *p, const struct pair *pair)
{
	enum pair_side side = named_side(pair);
	struct array *out = &p->line;
	int error = tool_print(out, "%-*s  ", STATE_WIDTH,
			       states[pair->state]);

	p->cell.size = 0;
	if (!error)
		error = tool_print_name(catalog_of(p, side),
					pair_entry(p->pairs, pair, side),
					&p->cell);
	if (!error)
		error = columns_cell(&p->cell, p->name_width, false,
				     out);
	if (!error)
		error = tool_print(out, "  ");
	if (!error)
		error = print_type(p, pair, side, out);
	if (!error && (pair->state == PAIR_DTYPE ||
		       pair->state == PAIR_SHAPE)) {
		error = tool_print(out, " -> ");
		if (!error)
			error = print_type(p, pair, PAIR_RIGHT, out);
	}
	if (!error && pair->has_values)
		error = print_figures(p, pair, out);
	return error ? error : tool_print(out, "\n");
}

static int print_json(struct diff_printer *p, const struct pair *pair)
{
	enum pair_side side = named_side(pair);
	struct array *out = &p->line;
	int error = tool_print(out, "{");

	if (!error)
		error = columns_json(catalog_of(p, side),
				     pair_entry(p->pairs, pair, side),
				     out);
	if (!error)
		error = tool_print(out, ",\"state\":\"%s\"",
				   states[pair->state]);
	if (!error && (pair->state == PAIR_DTYPE ||
		       pair->state == PAIR_SHAPE)) {
		error = tool_print(out, ",");
		if (!error)
			error = columns_json_type(catalog_of(p, PAIR_RIGHT),
						  pair_entry(p->pairs, pair,
							     PAIR_RIGHT),
						  "_b", out);
	}
	if (!error && pair->has_values)
		error = print_json_figures(p, pair, out);
	return error ? error : tool_print(out, "}\n");
}

static int measure(struct diff_printer *p)
{
	uint64_t i;
	int error = 0;

	for (i = 0; i < p->pairs->count && !error; i++) {
		const struct pair *pair = &p->pairs->pairs[i];
		enum pair_side side = named_side(pair);
		size_t width;

		p->counts[pair->state]++;
		if (pair->state == PAIR_EQUAL)
			continue;
		p->cell.size = 0;
		error = tool_print_name(catalog_of(p, side),
					pair_entry(p->pairs, pair, side),
					&p->cell);
		width = columns_width(&p->cell);
		if (width > NAME_WIDTH_MAX)
			width = NAME_WIDTH_MAX;
		if (width > p->name_width)
			p->name_width = width;
	}
	return error;
}

static void print_summary(const struct diff_printer *p)
{
	unsigned state;

	printf("%s", p->json ? "{\"summary\":{" : "");
	for (state = 0; state < PAIR_STATES; state++) {
		if (p->json)
			printf("\"%s\":%" PRIu64 ",", states[state],
			       p->counts[state]);
		else if (state == PAIR_EQUAL || p->counts[state] > 0)
			printf("%s%" PRIu64 " %s", state > 0 ? ", " : "",
			       p->counts[state], states[state]);
	}
	if (p->json)
		printf("\"objects_left_out\":%" PRIu64 "}}\n",
		       p->pairs->objects_left_out);
	else if (p->pairs->objects_left_out > 0)
		printf(", %" PRIu64 " that are no tensors left out\n",
		       p->pairs->objects_left_out);
	else
		printf("\n");
}

static int print_all(struct diff_printer *p)
{
	uint64_t i;
	int error = measure(p);

	for (i = 0; i < p->pairs->count && !error && !ferror(stdout); i++) {
		const struct pair *pair = &p->pairs->pairs[i];

		if (pair->state == PAIR_EQUAL && !p->json)
			continue;
		p->line.size = 0;
		error = p->json ? print_json(p, pair) :
				     print_line(p, pair);
		if (!error)
			fwrite(p->line.data, 1, p->line.size, stdout);
	}
	if (!error)
		print_summary(p);
	return error;
}

int diff_print(const struct pairs *pairs, bool json)
{
	struct diff_printer p = { .pairs = pairs, .json = json };
	int error = print_all(&p);

	array_finish(&p.line);
	array_finish(&p.cell);
	return error;
}
