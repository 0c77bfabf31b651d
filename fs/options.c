/* SPDX-License-Identifier: Apache-2.0 */
#define FUSE_USE_VERSION 314
#include "fs/options.h"

#include "fs/cli/tool.h"

#include <errno.h>
#include <fuse_opt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTION(text, field) { text, offsetof(struct options, field), 1 }

static const struct fuse_opt specs[] = {
	OPTION("-f", foreground),
	OPTION("-d", debug),
	OPTION("debug", debug),
	OPTION("-h", help),
	OPTION("--help", help),
	OPTION("-V", version),
	OPTION("--version", version),
	OPTION("log=%s", log),
	OPTION("fsname=%s", name),
	OPTION("decoded_cache=%s", decoded_cache),
	OPTION("hf_root=%s", hf_root),
	OPTION("hf_assets=%s", hf_assets),
	OPTION("deadline=%s", deadline),
	OPTION("force_mpi", force_mpi),
	/* What mount(8) and fstab(5) say to all file systems. */
	FUSE_OPT_KEY("defaults", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("auto", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("noauto", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("user", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("nouser", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("nofail", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("_netdev", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_KEY("rw", FUSE_OPT_KEY_DISCARD),
	FUSE_OPT_END
};

static const char help_text[] =
"usage: ckptfs SOURCE MOUNTPOINT [-f] [-d] [-o options]\n"
"       ckptfs COMMAND ...\n"
"\n"
"Mount the folder SOURCE, and every checkpoint in it (PyTorch distributed, or\n"
"safetensors), so that each tensor is a file. Beside the stored files of a\n"
"checkpoint stand:\n"
"\n"
"    tensors/NAME       the whole tensor: row-major, little-endian bytes\n"
"    npy/NAME.npy       the same behind a NumPy header\n"
"    f32/NAME.npy       floating types widened to float32\n"
"    safetensors/KEY.safetensors\n"
"                       all tensors below a key of the state dict\n"
"    hf/                model.safetensors, for from_pretrained\n"
"    objects/NAME.pt    what is not a tensor, as stored; NAME.json where it\n"
"                       is plain data\n"
"    tensors.json       names, types, shapes and shards of all tensors\n"
"\n"
"A slice is a name, too: tensors/NAME[0:1024,:]. The mount is read-only.\n"
"\n"
"Under mpirun, one daemon for each node, every mount shows what the stores of\n"
"all ranks have together:\n"
"\n"
"    mpirun --map-by ppr:1:node ckptfs SOURCE MOUNTPOINT\n"
"\n"
"%r in SOURCE, MOUNTPOINT and log= is the rank, %h the host. ckptfs --wait\n"
"MOUNTPOINT [--timeout SECONDS] waits until all ranks serve.\n"
"\n"
"    -f                 stay in the foreground\n"
"    -d                 print every request; implies -f\n"
"    -o log=FILE        append what is logged to FILE; in the background the\n"
"                       system log has it otherwise\n"
"    -o hf_root=KEY     the key of the state dict that hf/ shows: app.model\n"
"    -o hf_assets=DIR   a folder of more files for hf/: config.json, tokenizer\n"
"    -o decoded_cache=SIZE\n"
"                       memory for stored items that are compressed: 1G, 512M\n"
"    -o deadline=SECONDS\n"
"                       how long to wait for a rank that does not answer: 10\n"
"    -o force_mpi       read stores of ranks on this host by MPI, too\n"
"    -o fsname=NAME     the source that /proc/mounts shows\n"
"    -o allow_other     let other users in\n"
"    -o auto_unmount    unmount when the daemon dies\n"
"    -o ...             other options of mount(8) and fuse(8)\n"
"    -h, --help         this text\n"
"    -V, --version      the version\n"
"\n"
"Unmount with: fusermount3 -u MOUNTPOINT\n"
"\n"
"The commands need no mount; ckptfs COMMAND --help says more. A folder of such\n"
"a name is mounted as ./NAME.\n"
"\n";

void options_print_help(void)
{
	unsigned i;

	fputs(help_text, stdout);
	for (i = 0; tools[i]; i++)
		printf("    %-18s %s\n", tools[i]->name, tools[i]->summary);
}

static int take_argument(void *data, const char *arg, int key,
			 struct fuse_args *args)
{
	struct options *options = data;

	(void)args;
	if (key != FUSE_OPT_KEY_NONOPT)
		return 1;
	if (!options->source)
		options->source = strdup(arg);
	else if (!options->path)
		options->path = strdup(arg);
	else
		return -1;
	return 0;
}

/* Commas and backslashes separate options: escape them. */
static char *make_name_option(const char *name)
{
	char *text = malloc(2 * strlen(name) + 16), *p;

	if (!text)
		return NULL;
	p = text + sprintf(text, "-ofsname=");
	for (; *name; name++) {
		if (*name == ',' || *name == '\\')
			*p++ = '\\';
		*p++ = *name;
	}
	*p = '\0';
	return text;
}

int options_add_libfuse(const struct options *options, struct fuse_args *args)
{
	char *name = make_name_option(options->name ? options->name :
						      options->source);
	int failed = !name || fuse_opt_add_arg(args, name) ||
		     fuse_opt_add_arg(args, "-osubtype=ckptfs") ||
		     fuse_opt_add_arg(args, "-odefault_permissions") ||
		     fuse_opt_add_arg(args, "-omax_read=1048576") ||
		     fuse_opt_add_arg(args, "-oro") ||
		     (options->debug && fuse_opt_add_arg(args, "-d"));

	free(name);
	return failed ? -ENOMEM : 0;
}

/* ---- ranks --------------------------------------------------------------- */

/* With %r and %h as they are here; the old text is freed. */
static int expand(char **text, unsigned rank, const char *host)
{
	size_t size = *text ? strlen(*text) : 0;
	char *out, *to;
	const char *p;

	if (!*text)
		return 0;
	out = malloc(size * 64 + 1);
	if (!out)
		return -ENOMEM;
	for (p = *text, to = out; *p; p++) {
		if (p[0] == '%' && (p[1] == 'r' || p[1] == 'h')) {
			to += p[1] == 'r' ? sprintf(to, "%u", rank) :
					    sprintf(to, "%s", host);
			p++;
		} else {
			*to++ = *p;
		}
	}
	*to = '\0';
	free(*text);
	*text = out;
	return 0;
}

/* A number in the environment; 0: none. */
static unsigned number_of(const char *name)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 10) : 0;
}

int options_find_ranks(struct options *options)
{
	char host[64] = "";
	int error;

	options->rank = number_of("OMPI_COMM_WORLD_RANK");
	options->count = number_of("OMPI_COMM_WORLD_SIZE");
	options->under_mpirun = options->count > 0;
	if (options->count == 0)
		options->count = 1;
	gethostname(host, sizeof(host) - 1);
	error = expand(&options->source, options->rank, host);
	if (!error)
		error = expand(&options->path, options->rank, host);
	if (!error)
		error = expand(&options->log, options->rank, host);
	return error;
}

bool options_check(struct options *options, const char **ret_trouble)
{
	char *end;
	double seconds = 10;

	options->decoded_size = GIB;
	if (options->decoded_cache &&
	    !tool_parse_size(options->decoded_cache, &options->decoded_size)) {
		*ret_trouble = "decoded_cache needs a size, such as 1G";
		return false;
	}
	if (options->deadline) {
		seconds = strtod(options->deadline, &end);
		if (*end || end == options->deadline || !(seconds >= 0.1) ||
		    seconds > 3600) {
			*ret_trouble =
				"deadline needs seconds, 0.1 to 3600";
			return false;
		}
	}
	options->deadline_ms = (unsigned)(seconds * 1000);
	return true;
}

int options_parse(struct fuse_args *args, struct options *ret_options)
{
	return fuse_opt_parse(args, ret_options, specs, take_argument) ?
	       -EINVAL : 0;
}

void options_finish(struct options *options)
{
	free(options->source);
	free(options->path);
	free(options->log);
	free(options->name);
	free(options->decoded_cache);
	free(options->hf_root);
	free(options->hf_assets);
	free(options->deadline);
}
