/* SPDX-License-Identifier: Apache-2.0 */
/* Paths of planner_data: taken when they make up the name, else not. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/metadata_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct metadata_place somewhere = { "f", 0, 9 };

/* A part is a key, or, with a '#' in front, a number. */
static void put_part(struct array *out, const char *part)
{
	if (part[0] == '#')
		put_number(out, strtoll(part + 1, NULL, 10));
	else
		put_text(out, part);
}

static void put_path(struct array *out, const char *const *parts)
{
	PUT(out, "(");
	while (*parts)
		put_part(out, *parts++);
	PUT(out, "t");
}

static void add_tensor(struct metadata *m, const char *name)
{
	const struct box shape = BOX1(0, 4);

	metadata_whole(m, name, "float32", &shape, somewhere);
}

static void add_path(struct metadata *m, const char *name,
		     const char *const *parts)
{
	struct array path = { .data = NULL };

	put_path(&path, parts);
	metadata_path(m, name, &path);
	array_finish(&path);
}

static const struct catalog_entry *find(const struct catalog *catalog,
					const char *name)
{
	uint64_t i;

	for (i = 0; i < catalog->tensor_count; i++) {
		const struct catalog_entry *entry = catalog_entry(catalog, i);

		if (entry->name_size == strlen(name) &&
		    memcmp(catalog_text(catalog, entry->name), name,
			   entry->name_size) == 0)
			return entry;
	}
	fail_msg("no tensor %s", name);
	return NULL;
}

/* The path of @name has these parts. */
static void check_parts(const struct catalog *catalog, const char *name,
			const char *const *parts)
{
	const struct catalog_entry *entry = find(catalog, name);
	size_t end = 0;
	unsigned i;

	for (i = 0; parts[i]; i++) {
		end += strlen(parts[i]) - (parts[i][0] == '#') + (i > 0);
		if (i + 1 < entry->depth)
			assert_int_equal(catalog_path_size(catalog, entry,
							   i + 1), end);
	}
	assert_int_equal(entry->depth, i);
	assert_int_equal(end, strlen(name));
}

static void check_none(const struct catalog *catalog, const char *name)
{
	assert_int_equal(find(catalog, name)->depth, 0);
}

#define PARTS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define GOOD(m, name, ...) \
	(add_tensor(m, name), add_path(m, name, PARTS(__VA_ARGS__)))

static void as_torch_writes_them(void **state)
{
	struct metadata m = { .protocol = 4 };
	struct catalog *catalog;

	(void)state;
	GOOD(&m, "w", "w");
	GOOD(&m, "model.w", "model", "w");
	GOOD(&m, "app.model.0.weight", "app", "model", "0.weight");
	GOOD(&m, "optim.param_groups.0.lr", "optim", "param_groups", "#0",
	     "lr");
	GOOD(&m, "optim.state.0.step", "optim", "state", "0", "step");
	GOOD(&m, "a.300.70000.5000000000.-1", "a", "#300", "#70000",
	     "#5000000000", "#-1");
	GOOD(&m, "flat.name.with.dots", "flat.name.with.dots");
	catalog = metadata_catalog(&m);
	check_parts(catalog, "w", PARTS("w"));
	check_parts(catalog, "model.w", PARTS("model", "w"));
	check_parts(catalog, "app.model.0.weight",
		    PARTS("app", "model", "0.weight"));
	check_parts(catalog, "optim.param_groups.0.lr",
		    PARTS("optim", "param_groups", "#0", "lr"));
	check_parts(catalog, "optim.state.0.step",
		    PARTS("optim", "state", "0", "step"));
	check_parts(catalog, "a.300.70000.5000000000.-1",
		    PARTS("a", "#300", "#70000", "#5000000000", "#-1"));
	check_parts(catalog, "flat.name.with.dots",
		    PARTS("flat.name.with.dots"));
	assert_true(catalog_is_below(catalog,
				     find(catalog, "app.model.0.weight"),
				     "app.model", 9));
	assert_false(catalog_is_below(catalog,
				      find(catalog, "app.model.0.weight"),
				      "app.model.0", 11));
	catalog_put(catalog);
}

static void parts_that_hold_dots_or_nothing(void **state)
{
	struct metadata m = { .protocol = 4 };
	struct catalog *catalog;

	(void)state;
	GOOD(&m, "", "");
	GOOD(&m, ".", "", "");
	GOOD(&m, "a..b.", "a", "", "b", "");
	GOOD(&m, "..x", "..x");
	catalog = metadata_catalog(&m);
	check_parts(catalog, "", PARTS(""));
	check_parts(catalog, ".", PARTS("", ""));
	check_parts(catalog, "a..b.", PARTS("a", "", "b", ""));
	check_parts(catalog, "..x", PARTS("..x"));
	catalog_put(catalog);
}

/* Whatever does not make up the name, or is no tuple of keys. */
static void paths_that_are_none(void **state)
{
	static const struct {
		const char *name, *path;
		size_t size;
	} cases[] = {
#define CASE(name, path) { name, path, sizeof(path) - 1 }
		CASE("a.b", "\x8c\1a\x8c\1c\x86"),
		CASE("a/b", "\x8c\1a\x8c\1b\x86"),
		CASE("a.b.c", "\x8c\1a\x8c\1b\x86"),
		CASE("a.b", "\x8c\1a\x85"),
		CASE("a.b", "\x8c\1a\x8c\1b\x8c\1c\x87"),
		CASE("a.b", "\x8c\1a\x8c\1b\x8c\0\x87"),
		CASE("a.b", "\x8c\3a.c\x85"),
		CASE("a.b", "\x8c\4a.bb\x85"),
		CASE("a.b", ")"),
		CASE("a.b", "N"),
		CASE("a.b", "K\1"),
		CASE("a.b", "\x8c\3a.b"),
		CASE("a.b", "](\x8c\1a\x8c\1be"),
		CASE("a.b", "}\x8c\1a\x8c\1bs"),
		CASE("a.True", "\x8c\1a\x88\x86"),
		CASE("a.None", "\x8c\1aN\x86"),
		CASE("a.1.5", "\x8c\1aG\x3f\xf8\0\0\0\0\0\0\x86"),
		CASE("a.b", "\x8c\1a\x8c\1b\x85\x86"),
		CASE("a.os", "\x8c\1acos\nos\n\x86"),
		/* 2^64 is more than a position can be. */
		CASE("a.18446744073709551616",
		     "\x8c\1a\x8a\x09\0\0\0\0\0\0\0\0\1\x86"),
		CASE("a.01", "\x8c\1aK\1\x86"),
		CASE("a.+1", "\x8c\1aK\1\x86"),
		/* ("a", [itself]) */
		CASE("a.b", "\x8c\1a]q\1\x86q\2h\1h\2a0"),
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(cases); i++) {
		struct metadata m = { .protocol = 4 };
		const struct array path = {
			.data = (char *)(uintptr_t)cases[i].path,
			.size = cases[i].size,
		};
		struct catalog *catalog;

		add_tensor(&m, cases[i].name);
		metadata_path(&m, cases[i].name, &path);
		GOOD(&m, "c.d", "c", "d");
		catalog = metadata_catalog(&m);
		check_none(catalog, cases[i].name);
		check_parts(catalog, "c.d", PARTS("c", "d"));
		catalog_put(catalog);
	}
}

static void planner_data_that_is_none(void **state)
{
	static const struct {
		const char *pickle;
		size_t size;
	} cases[] = {
#define PICKLE(pickle) { pickle, sizeof(pickle) - 1 }
		PICKLE("N"), PICKLE("}"), PICKLE("]"), PICKLE(")"),
		PICKLE("K\1"), PICKLE("\x8c\1w"), PICKLE("ca\nb\n)\x81"),
		/* Keys of other kinds, and of a tensor that is not there. */
		PICKLE("}(K\1\x8c\1w\x85N)\x8c\1v\x8c\1v\x85u"),
		/* A dict that holds itself. */
		PICKLE("}q\1(\x8c\1wh\1u"),
	};
	unsigned i;

	(void)state;
	for (i = 0; i < COUNT_OF(cases); i++) {
		struct metadata m = { .protocol = 4 };
		struct catalog *catalog;

		add_tensor(&m, "w");
		put_bytes(&m.planner, cases[i].pickle, cases[i].size);
		catalog = metadata_catalog(&m);
		check_none(catalog, "w");
		catalog_put(catalog);
	}
}

/* As in a dict of Python. */
static void last_path_of_a_name_counts(void **state)
{
	struct metadata m = { .protocol = 4 };
	struct catalog *catalog;

	(void)state;
	add_tensor(&m, "a.b");
	add_tensor(&m, "c.d");
	add_path(&m, "a.b", PARTS("a.b"));
	add_path(&m, "c.d", PARTS("c", "d"));
	add_path(&m, "a.b", PARTS("a", "b"));
	add_path(&m, "c.d", PARTS("x"));
	catalog = metadata_catalog(&m);
	check_parts(catalog, "a.b", PARTS("a", "b"));
	check_none(catalog, "c.d");
	catalog_put(catalog);
}

/* In whatever order they stand, objects among them. */
static void order_does_not_matter(void **state)
{
	struct metadata m = { .protocol = 4 };
	struct catalog *catalog;
	char name[32], number[8];
	int i;

	(void)state;
	for (i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "m.%d", i);
		add_tensor(&m, name);
		snprintf(name, sizeof(name), "o.%d", i);
		metadata_object(&m, name);
	}
	for (i = 99; i >= 0; i--) {
		snprintf(number, sizeof(number), "#%d", i * 37 % 100);
		snprintf(name, sizeof(name), "o.%d", i);
		add_path(&m, name, PARTS("o", number));
		snprintf(name, sizeof(name), "m.%d", i * 37 % 100);
		add_path(&m, name, PARTS("m", number));
	}
	catalog = metadata_catalog(&m);
	for (i = 0; i < 100; i++) {
		snprintf(number, sizeof(number), "#%d", i);
		snprintf(name, sizeof(name), "m.%d", i);
		check_parts(catalog, name, PARTS("m", number));
	}
	catalog_put(catalog);
}

static void lowest_rank_wins(void **state)
{
	struct array texts[3] = { { .data = NULL } };
	struct notes notes;
	struct catalog *catalog;
	unsigned rank;

	(void)state;
	for (rank = 0; rank < 3; rank++) {
		struct metadata m = { .protocol = 5 };

		add_tensor(&m, "all.of.them");
		if (rank > 0)
			add_tensor(&m, "two.of.them");
		if (rank == 2)
			add_tensor(&m, "o.n.e");
		add_path(&m, "all.of.them", rank == 0 ?
			 PARTS("all", "of", "them") : PARTS("all.of", "them"));
		/* Rank 0 knows the path and not the tensor. */
		add_path(&m, "two.of.them", rank == 0 ?
			 PARTS("two", "of.them") : PARTS("two.of.them"));
		if (rank > 0)
			add_path(&m, "o.n.e", rank == 1 ? PARTS("o.n") :
				 PARTS("o", "n", "e"));
		metadata_finish(&m, &texts[rank]);
	}
	catalog = metadata_read(texts, 3, true, &notes);
	check_parts(catalog, "all.of.them", PARTS("all", "of", "them"));
	check_parts(catalog, "two.of.them", PARTS("two", "of.them"));
	/* Also when it is wrong. */
	check_none(catalog, "o.n.e");
	catalog_put(catalog);
}

/* LIMIT_PATH_DEPTH parts, and more: the rest is the last part. */
static void deep_paths(void **state)
{
	static const unsigned depths[] = { 255, 256, 257, 1000 };
	unsigned i, j;

	(void)state;
	for (i = 0; i < COUNT_OF(depths); i++) {
		const struct catalog_entry *entry;
		struct metadata m = { .protocol = 4 };
		struct array path = { .data = NULL };
		struct catalog *catalog;
		char name[2 * 1000];

		memset(name, '.', sizeof(name));
		PUT(&path, "(");
		for (j = 0; j < depths[i]; j++) {
			name[2 * j] = 'k';
			put_text(&path, "k");
		}
		PUT(&path, "t");
		name[2 * j - 1] = '\0';
		add_tensor(&m, name);
		metadata_path(&m, name, &path);
		array_finish(&path);
		catalog = metadata_catalog(&m);
		entry = catalog_entry(catalog, 0);
		assert_int_equal(entry->depth, depths[i] < LIMIT_PATH_DEPTH ?
				 depths[i] : LIMIT_PATH_DEPTH);
		for (j = 1; j < entry->depth; j++)
			assert_int_equal(catalog_path_size(catalog, entry, j),
					 2 * j - 1);
		catalog_put(catalog);
	}
}

/* Processor time for 20000 tensors whose paths are all the tuple @path, which
 * was put into the memo. */
static double time_shared(const struct array *path)
{
	struct metadata m = { .protocol = 4 };
	const struct array shared = { .data = "h\1", .size = 2 };
	struct catalog *catalog;
	clock_t start;
	char name[32];
	unsigned i;

	add_tensor(&m, "first");
	metadata_path(&m, "first", path);
	for (i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "........%u", i);
		add_tensor(&m, name);
		metadata_path(&m, name, &shared);
	}
	start = clock();
	catalog = metadata_catalog(&m);
	assert_int_equal(catalog_entry(catalog, 20000)->depth, 0);
	catalog_put(catalog);
	return (double)(clock() - start) / CLOCKS_PER_SEC;
}

static void shared_paths_are_no_hang(void **state)
{
	struct array small = { .data = NULL }, large = { .data = NULL };
	double usual, other;
	unsigned i;

	(void)state;
	PUT(&small, ")q\1");
	usual = time_shared(&small);
	PUT(&large, "(");
	for (i = 0; i < 200000; i++)
		PUT(&large, "\x8c\0");
	PUT(&large, "tq\1");
	other = time_shared(&large);
	print_message("%.3f s, %.3f s\n", usual, other);
	assert_true(other < 10 * usual + 0.2);
	array_finish(&small);
	array_finish(&large);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_torch_writes_them),
		cmocka_unit_test(parts_that_hold_dots_or_nothing),
		cmocka_unit_test(paths_that_are_none),
		cmocka_unit_test(planner_data_that_is_none),
		cmocka_unit_test(last_path_of_a_name_counts),
		cmocka_unit_test(order_does_not_matter),
		cmocka_unit_test(lowest_rank_wins),
		cmocka_unit_test(deep_paths),
		cmocka_unit_test(shared_paths_are_no_hang),
	};

	return cmocka_run_group_tests_name("dcp_path", tests, NULL, NULL);
}
