/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/cli/stat_run.h"

#include "fs/cli/columns.h"

#include "shard/values/convert.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum stat_column {
	COLUMN_NAME, COLUMN_TYPE, COLUMN_SHAPE, COLUMN_MIN, COLUMN_MAX,
	COLUMN_MEAN, COLUMN_STD, COLUMN_ZEROS, COLUMN_NAN, COLUMN_INF,
	COLUMN_COUNT,
};

static const struct {
	const char *head;	/* and key of JSON */
	size_t width_max;	/* characters: what is longer moves the rest
				 * of its line to the right */
	bool right;
} columns[COLUMN_COUNT] = {
	{ "name", 60, false }, { "dtype", 16, false }, { "shape", 24, false },
	{ "min", 20, true }, { "max", 20, true }, { "mean", 20, true },
	{ "std", 20, true }, { "zeros", 20, true }, { "nan", 20, true },
	{ "inf", 20, true },
};

struct stat_printer {
	const struct stat_run *run;
	size_t widths[COLUMN_COUNT];	/* characters */
	struct array line, cell;	/* owned; at hand */
};

static struct statistics total(const struct stat_run *run, uint64_t index)
{
	struct statistics total = STATISTICS_NONE;
	uint64_t unit;

	for (unit = run->sweep.first[index];
	     unit < run->sweep.first[index + 1]; unit++)
		statistics_merge(&total, &run->parts[unit]);
	return total;
}

/* ---- values -------------------------------------------------------------- */

/* A minimum or maximum: an integer as it is. */
static int print_extreme(const struct stat_run *run, enum dtype dtype,
			 double value, uint64_t exact, struct array *out)
{
	if (dtype == DTYPE_I64)
		return tool_print(out, "%" PRId64,
				  (int64_t)(exact ^ UINT64_C(1) << 63));
	if (dtype == DTYPE_U64)
		return tool_print(out, "%" PRIu64, exact);
	/* All other integers are exact as doubles; and -0 is 0. */
	if (run->json)
		return columns_json_double(value + 0.0, out);
	return tool_print(out, dtype_info(dtype)->kind == DTYPE_KIND_INTEGER ?
			  "%.10g" : "%.6g", value + 0.0);
}

static int print_number(const struct stat_run *run, double value,
			struct array *out)
{
	return run->json ? columns_json_double(value + 0.0, out) :
			   tool_print(out, "%.6g", value + 0.0);
}

/* What of @statistics is in @column; false when there is nothing. */
static bool has_value(const struct stat_run *run,
		      const struct stat_tensor *tensor,
		      const struct statistics *statistics,
		      enum stat_column column)
{
	enum dtype dtype = catalog_entry(run->catalog, tensor->entry)->dtype;

	if (tensor->failure.error || !convert_has_value(dtype))
		return false;
	return column >= COLUMN_ZEROS || statistics_finite(statistics) > 0;
}

static int print_value(const struct stat_run *run, uint64_t index,
		       const struct statistics *s, enum stat_column column,
		       struct array *out)
{
	const struct stat_tensor *tensor = &run->tensors[index];
	enum dtype dtype = catalog_entry(run->catalog, tensor->entry)->dtype;

	if (!has_value(run, tensor, s, column))
		return tool_print(out, run->json ? "null" : "-");
	switch (column) {
	case COLUMN_MIN:
		return print_extreme(run, dtype, s->min, s->low, out);
	case COLUMN_MAX:
		return print_extreme(run, dtype, s->max, s->high, out);
	case COLUMN_MEAN:
		return print_number(run, (double)s->mean, out);
	case COLUMN_STD:
		return print_number(run, statistics_deviation(s), out);
	case COLUMN_ZEROS:
		return tool_print(out, "%" PRIu64, s->zeros);
	case COLUMN_NAN:
		return tool_print(out, "%" PRIu64, s->nans);
	default:
		return tool_print(out, "%" PRIu64, s->infs);
	}
}

/* ---- lines --------------------------------------------------------------- */

static int make_cell(struct stat_printer *p, uint64_t index,
		     const struct statistics *s, enum stat_column column)
{
	const struct stat_run *run = p->run;
	const struct catalog_entry *entry =
		catalog_entry(run->catalog, run->tensors[index].entry);

	p->cell.size = 0;
	switch (column) {
	case COLUMN_NAME:
		return tool_print_name(run->catalog, entry, &p->cell);
	case COLUMN_TYPE:
		return columns_type(run->catalog, entry, &p->cell);
	case COLUMN_SHAPE:
		return columns_shape(run->catalog, entry, &p->cell);
	default:
		return print_value(run, index, s, column, &p->cell);
	}
}

static void widen(struct stat_printer *p, enum stat_column column)
{
	size_t width = columns_width(&p->cell);

	if (width > columns[column].width_max)
		width = columns[column].width_max;
	if (width > p->widths[column])
		p->widths[column] = width;
}

static int put_cell(struct stat_printer *p, enum stat_column column)
{
	bool last = column + 1 == COLUMN_COUNT;
	int error = columns_cell(&p->cell, p->widths[column],
				 columns[column].right, &p->line);

	return error ? error : tool_print(&p->line, last ? "\n" : "  ");
}

static void put_line(struct stat_printer *p)
{
	fwrite(p->line.data, 1, p->line.size, stdout);
	p->line.size = 0;
}

static int print_head(struct stat_printer *p)
{
	enum stat_column column;
	int error = 0;

	for (column = 0; column < COLUMN_COUNT && !error; column++) {
		p->cell.size = 0;
		error = tool_print(&p->cell, "%s", columns[column].head);
		widen(p, column);
		if (!error)
			error = put_cell(p, column);
	}
	if (!error)
		put_line(p);
	return error;
}

static int print_table(struct stat_printer *p)
{
	const struct stat_run *run = p->run;
	enum stat_column column;
	uint64_t i;
	int error = 0;

	for (i = 0; i < run->count && !error; i++) {
		struct statistics s = total(run, i);

		for (column = 0; column < COLUMN_COUNT && !error; column++) {
			error = make_cell(p, i, &s, column);
			widen(p, column);
		}
	}
	if (!error && run->count > 0)
		error = print_head(p);
	for (i = 0; i < run->count && !error && !ferror(stdout); i++) {
		struct statistics s = total(run, i);

		for (column = 0; column < COLUMN_COUNT && !error; column++) {
			error = make_cell(p, i, &s, column);
			if (!error)
				error = put_cell(p, column);
		}
		if (!error)
			put_line(p);
	}
	return error;
}

static int print_object(struct stat_printer *p, uint64_t index)
{
	const struct stat_run *run = p->run;
	const struct stat_tensor *tensor = &run->tensors[index];
	struct statistics s = total(run, index);
	enum stat_column column;
	int error = tool_print(&p->line, "{");

	if (!error)
		error = columns_json(run->catalog,
				     catalog_entry(run->catalog,
						   tensor->entry),
				     &p->line);
	for (column = COLUMN_MIN; column < COLUMN_COUNT && !error; column++) {
		error = tool_print(&p->line, ",\"%s\":",
				   columns[column].head);
		if (!error)
			error = print_value(run, index, &s, column,
					    &p->line);
	}
	if (!error && tensor->failure.error)
		error = tool_print(&p->line, ",\"error\":\"%s\"",
				   strerror(-tensor->failure.error));
	if (!error)
		error = tool_print(&p->line, "}\n");
	if (!error)
		put_line(p);
	return error;
}

static int print_json(struct stat_printer *p)
{
	const struct stat_run *run = p->run;
	uint64_t i;
	int error = 0;

	for (i = 0; i < run->count && !error && !ferror(stdout); i++)
		error = print_object(p, i);
	if (!error)
		printf("{\"summary\":{\"tensors\":%" PRIu64
		       ",\"unreadable\":%" PRIu64 "}}\n", run->count,
		       stat_count_unreadable(run));
	return error;
}


int stat_print(const struct stat_run *run)
{
	struct stat_printer p = { .run = run };
	int error = run->json ? print_json(&p) : print_table(&p);

	array_finish(&p.line);
	array_finish(&p.cell);
	return error;
}
