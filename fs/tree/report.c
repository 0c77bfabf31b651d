/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both say the same, from the same figures. What cannot be added to the text
 * for want of memory makes it fail as a whole.
 */
#include "fs/tree/report.h"

#include "shard/base/json_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A text that is made. */
struct text {
	struct array *out;
	bool failed;
};

__attribute__((format(printf, 2, 3)))
static void put(struct text *text, const char *format, ...)
{
	char line[512];
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	text->failed |= size < 0 || size >= (int)sizeof(line) ||
			array_append(text->out, line, (size_t)size) != 0;
}

/* "KEY": "VALUE" */
static void put_string(struct text *text, const char *key, const char *value)
{
	put(text, "\"%s\": ", key);
	text->failed |= json_text_string(text->out, value,
					 strlen(value)) != 0;
}

static const char *const source_names[COUNTERS_SOURCES] = {
	[COUNTERS_LOCAL] = "local", [COUNTERS_PEER] = "peer",
	[COUNTERS_SERVED] = "served",
};

static const char *state_name(enum peer_state state)
{
	static const char *const names[] = {
		[PEER_STARTING] = "starting", [PEER_SELF] = "self",
		[PEER_UP] = "up", [PEER_SUSPECT] = "suspect",
		[PEER_LOST] = "lost", [PEER_LEFT] = "left",
	};

	return names[state];
}

/* ---- status.json --------------------------------------------------------- */

static void host_name(char name[64])
{
	memset(name, 0, 64);
	gethostname(name, 63);
}

static void put_ranks(struct text *text, const struct report *report)
{
	struct peers *peers = report->ns->peers;
	unsigned count = peers ? peers->count : 1, i;

	put(text, " \"ranks\": [");
	for (i = 0; i < count; i++) {
		struct peer_info info = { .state = PEER_SELF };

		if (peers)
			peers->info(peers, i, &info);
		if (info.state == PEER_SELF && !*info.host)
			host_name(info.host);
		put(text, "%s\n  {\"rank\": %u, ", i ? "," : "", i);
		put_string(text, "host", info.host);
		put(text, ", \"state\": \"%s\", \"store\": \"%s\"}",
		    state_name(info.state),
		    info.state == PEER_SELF ? "self" :
		    info.direct ? "direct" : "peer");
	}
	put(text, "],\n");
}

static void put_catalog(struct text *text, const struct mounted *mounted)
{
	const struct catalog *catalog = mounted->checkpoint->catalog;

	put(text, "  {");
	put_string(text, "path", mounted->path);
	put(text, ", \"tensors\": %" PRIu64 ", \"objects\": %" PRIu64
	    ", \"files\": %" PRIu64 ", \"bytes\": %" PRIu64
	    ", \"hash\": \"%016" PRIx64 "%016" PRIx64 "\"}",
	    catalog->tensor_count, catalog->object_count, catalog->file_count,
	    catalog->size, catalog->hash[1], catalog->hash[0]);
}

static void put_catalogs(struct text *text, struct namespace *ns)
{
	struct mounted *mounted;
	bool first = true;

	put(text, " \"catalogs\": [");
	pthread_mutex_lock(&ns->inodes.lock);
	LIST_FOREACH(mounted, &ns->inodes.mounted, link) {
		if (atomic_load(&mounted->retired))
			continue;
		put(text, first ? "\n" : ",\n");
		first = false;
		put_catalog(text, mounted);
	}
	pthread_mutex_unlock(&ns->inodes.lock);
	put(text, "],\n");
}

static void put_reads(struct text *text, struct counters_reads *reads)
{
	put(text, "{\"requests\": %" PRIu64 ", \"bytes\": %" PRIu64
	    ", \"errors\": %" PRIu64 "}", atomic_load(&reads->requests),
	    atomic_load(&reads->bytes), atomic_load(&reads->errors));
}

/* Upper bounds of the buckets in microseconds, and how many were in them. */
static void put_latency(struct text *text, struct counters_reads *reads)
{
	unsigned i;
	bool first = true;

	put(text, "[");
	for (i = 0; i < COUNTERS_BUCKETS; i++) {
		uint64_t count = atomic_load(&reads->buckets[i]);

		if (count == 0)
			continue;
		put(text, "%s{\"le\": ", first ? "" : ", ");
		if (i == COUNTERS_BUCKETS - 1)
			put(text, "null");
		else
			put(text, "%" PRIu64, UINT64_C(1) << i);
		put(text, ", \"count\": %" PRIu64 "}", count);
		first = false;
	}
	put(text, "]");
}

static void make_status(struct text *text, const struct report *report)
{
	struct namespace *ns = report->ns;
	uint64_t slots = 0, quarantined = 0;
	char host[64];

	host_name(host);
	if (report->count)
		report->count(report->context, &slots, &quarantined);
	put(text, "{");
	put_string(text, "version", report->version);
	put(text, ",\n \"state\": \"%s\",\n \"rank\": %u, ",
	    !ns->peers || ns->peers->is_ready(ns->peers) ? "serving" :
							    "starting",
	    ns->peers ? ns->peers->rank : 0);
	put_string(text, "host", host);
	put(text, ", \"pid\": %d,\n ", (int)getpid());
	put_string(text, "store", report->source);
	put(text, ",\n ");
	put_string(text, "mount", report->path);
	put(text, ",\n");
	put_ranks(text, report);
	put_catalogs(text, ns);
	put(text, " \"reads\": {\"local\": ");
	put_reads(text, &ns->counters.reads[COUNTERS_LOCAL]);
	put(text, ", \"peer\": ");
	put_reads(text, &ns->counters.reads[COUNTERS_PEER]);
	put(text, "},\n \"served\": ");
	put_reads(text, &ns->counters.reads[COUNTERS_SERVED]);
	put(text, ",\n \"slots\": {\"used\": %" PRIu64
	    ", \"quarantined\": %" PRIu64 "},\n \"latency_us\": {\"local\": ",
	    slots, quarantined);
	put_latency(text, &ns->counters.reads[COUNTERS_LOCAL]);
	put(text, ",\n  \"peer\": ");
	put_latency(text, &ns->counters.reads[COUNTERS_PEER]);
	put(text, ",\n  \"served\": ");
	put_latency(text, &ns->counters.reads[COUNTERS_SERVED]);
	put(text, "}}\n");
}

/* ---- metrics ------------------------------------------------------------- */

static void put_family(struct text *text, const char *name, const char *type,
		       const char *help)
{
	put(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_counter(struct text *text, const char *name, const char *help,
			struct counters *counters, size_t offset)
{
	unsigned i;

	put_family(text, name, "counter", help);
	for (i = 0; i < COUNTERS_SOURCES; i++) {
		_Atomic uint64_t *counter =
			(void *)((char *)&counters->reads[i] + offset);

		put(text, "%s{source=\"%s\"} %" PRIu64 "\n", name,
		    source_names[i], atomic_load(counter));
	}
}

static void put_histogram(struct text *text, struct counters_reads *reads,
			  const char *source)
{
	static const char name[] = "ckptfs_read_seconds";
	uint64_t total = 0;
	unsigned i;

	for (i = 0; i < COUNTERS_BUCKETS - 1; i++) {
		total += atomic_load(&reads->buckets[i]);
		put(text, "%s_bucket{source=\"%s\",le=\"%g\"} %" PRIu64
		    "\n", name, source, (double)(UINT64_C(1) << i) / 1e6,
		    total);
	}
	total += atomic_load(&reads->buckets[i]);
	put(text, "%s_bucket{source=\"%s\",le=\"+Inf\"} %" PRIu64 "\n",
	    name, source, total);
	put(text, "%s_sum{source=\"%s\"} %g\n%s_count{source=\"%s\"} %"
	    PRIu64 "\n", name, source,
	    (double)atomic_load(&reads->sum_us) / 1e6, name, source, total);
}

static void put_peer_metrics(struct text *text, const struct report *report)
{
	struct peers *peers = report->ns->peers;
	unsigned count = peers ? peers->count : 1, i;
	struct peer_info info = { .host = "" };

	put_family(text, "ckptfs_rank_up", "gauge",
		   "1 while the rank answers.");
	for (i = 0; i < count; i++) {
		info.state = PEER_SELF;
		if (peers)
			peers->info(peers, i, &info);
		if (info.state == PEER_SELF && !*info.host)
			host_name(info.host);
		put(text, "ckptfs_rank_up{rank=\"%u\",host=\"%s\",state=\"%s\"} %d\n",
		    i, info.host, state_name(info.state),
		    info.state == PEER_SELF || info.state == PEER_UP);
	}
}

static void put_gauges(struct text *text, const struct report *report)
{
	uint64_t slots = 0, quarantined = 0, catalogs = 0, bytes = 0;
	struct inode_table *inodes = &report->ns->inodes;
	struct mounted *mounted;

	if (report->count)
		report->count(report->context, &slots, &quarantined);
	pthread_mutex_lock(&inodes->lock);
	LIST_FOREACH(mounted, &inodes->mounted, link) {
		catalogs += !atomic_load(&mounted->retired);
		bytes += mounted->checkpoint->catalog->size;
	}
	pthread_mutex_unlock(&inodes->lock);
	put_family(text, "ckptfs_catalogs", "gauge", "Checkpoints known.");
	put(text, "ckptfs_catalogs %" PRIu64 "\n", catalogs);
	put_family(text, "ckptfs_catalog_bytes", "gauge",
		   "Memory of their catalogs.");
	put(text, "ckptfs_catalog_bytes %" PRIu64 "\n", bytes);
	put_family(text, "ckptfs_slots", "gauge",
		   "Answers of other ranks that are waited for.");
	put(text, "ckptfs_slots %" PRIu64 "\n", slots);
	put_family(text, "ckptfs_slots_quarantined", "gauge",
		   "Of these, too late for anybody.");
	put(text, "ckptfs_slots_quarantined %" PRIu64 "\n", quarantined);
}

static void make_metrics(struct text *text, const struct report *report)
{
	struct counters *counters = &report->ns->counters;
	unsigned i;

	put_peer_metrics(text, report);
	put_gauges(text, report);
	put_counter(text, "ckptfs_reads_total",
		    "Reads, by where their bytes were; served: for others.",
		    counters, offsetof(struct counters_reads, requests));
	put_counter(text, "ckptfs_read_bytes_total", "Bytes read.", counters,
		    offsetof(struct counters_reads, bytes));
	put_counter(text, "ckptfs_read_errors_total", "Reads that failed.",
		    counters, offsetof(struct counters_reads, errors));
	put_family(text, "ckptfs_read_seconds", "histogram",
		   "How long reads took.");
	for (i = 0; i < COUNTERS_SOURCES; i++)
		put_histogram(text, &counters->reads[i], source_names[i]);
}

bool report_make(void *context, const char *name, struct array *out)
{
	const struct report *report = context;
	struct text text = { .out = out };
	bool status = strcmp(name, "status.json") == 0;

	if (!status && strcmp(name, "metrics") != 0)
		return false;
	if (!out)
		return true;
	/* For whoever asks next. */
	if (report->ns->peers)
		report->ns->peers->probe(report->ns->peers);
	if (status)
		make_status(&text, report);
	else
		make_metrics(&text, report);
	return !text.failed;
}
