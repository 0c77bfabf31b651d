/* SPDX-License-Identifier: Apache-2.0 */
/* Which releases of torch write metadata of this form. */
#include "support/test.h"
#include "support/catalog_out.h"
#include "support/metadata_out.h"

#include <stdlib.h>
#include <string.h>

static void add_tensor(struct metadata *m)
{
	const struct box shape = BOX1(0, 4);

	metadata_whole(m, "w", "float32", &shape,
		       (struct metadata_place){ "f", 0, 9 });
}

static void check_local(struct metadata *m, bool local, unsigned format,
			unsigned first, unsigned last)
{
	struct array text = { .data = NULL };
	struct catalog *catalog;
	struct notes notes;

	metadata_finish(m, &text);
	catalog = metadata_read(&text, 1, local, &notes);
	assert_int_equal(catalog->origin.format, format);
	assert_int_equal(catalog->origin.torch_first, first);
	assert_int_equal(catalog->origin.torch_last, last);
	catalog_put(catalog);
}

static void check(struct metadata *m, unsigned first, unsigned last)
{
	check_local(m, false, CATALOG_DCP, first, last);
}

/* StorageMeta, with the fields @fields. */
static void put_storage_meta(struct metadata *m, const char *const *fields)
{
	put_text(&m->root, "storage_meta");
	put_global(&m->root, "torch.distributed.checkpoint.metadata",
		   "StorageMeta");
	PUT(&m->root, ")\x81}(");
	for (; *fields; fields++) {
		put_text(&m->root, *fields);
		PUT(&m->root, "N");
	}
	PUT(&m->root, "ub");
}
#define FIELDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void by_modules(void **state)
{
	struct metadata m = { .old = true };

	(void)state;
	add_tensor(&m);
	check(&m, 113, 113);
	/* No tensor: the root says it. */
	m = (struct metadata){ .old = true };
	check(&m, 113, 113);
	m = (struct metadata){ .old_properties = true };
	add_tensor(&m);
	check(&m, 200, 202);
	m = (struct metadata){ .protocol = 4 };
	add_tensor(&m);
	check(&m, 203, 203);
	m = (struct metadata){ .protocol = 4 };
	check(&m, 200, 203);
	m = (struct metadata){ .protocol = 4 };
	metadata_object(&m, "o");
	check(&m, 200, 203);
	/* The first tensor stands behind an object. */
	m = (struct metadata){ .old_properties = true };
	metadata_object(&m, "o");
	add_tensor(&m);
	check(&m, 200, 202);
	/* Megatron's root, and torch's tensors. */
	m = (struct metadata){ .old_properties = true, .megatron = true };
	add_tensor(&m);
	check(&m, 200, 202);
	m = (struct metadata){ .old = true, .megatron = true };
	add_tensor(&m);
	check(&m, 113, 113);
}

static void by_fields(void **state)
{
	struct metadata m = { .protocol = 4 };

	(void)state;
	add_tensor(&m);
	put_storage_meta(&m, FIELDS("checkpoint_id", "save_id", "load_id"));
	check(&m, 204, 206);
	m = (struct metadata){ .protocol = 4 };
	put_storage_meta(&m, FIELDS("checkpoint_id", "save_id", "load_id",
				    "modules"));
	check(&m, 207, 208);
	m = (struct metadata){ .protocol = 4 };
	put_text(&m.root, "storage_meta");
	PUT(&m.root, "N");
	check(&m, 204, 208);
	m = (struct metadata){ .protocol = 4 };
	put_storage_meta(&m, FIELDS("modules"));
	put_text(&m.root, "version");
	put_text(&m.root, "1.0.0");
	check(&m, 209, 0);
	m = (struct metadata){ .protocol = 4, .megatron = true };
	put_text(&m.root, "version");
	PUT(&m.root, "N");
	check(&m, 209, 0);
}

static void of_ranks(void **state)
{
	struct array texts[2] = { { .data = NULL } };
	struct metadata m = { .protocol = 4 };
	struct catalog *catalog;
	struct notes notes;
	unsigned i;

	(void)state;
	add_tensor(&m);
	check_local(&m, true, CATALOG_DCP_LOCAL, 209, 0);
	for (i = 0; i < 2; i++) {
		m = (struct metadata){ .protocol = 4 };
		metadata_finish(&m, &texts[i]);
	}
	catalog = metadata_read(texts, 2, false, &notes);
	assert_int_equal(catalog->origin.format, CATALOG_DCP_LOCAL);
	catalog_put(catalog);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_modules),
		cmocka_unit_test(by_fields),
		cmocka_unit_test(of_ranks),
	};

	return cmocka_run_group_tests_name("dcp_origin", tests, NULL, NULL);
}
