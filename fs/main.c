/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ckptfs SOURCE MOUNTPOINT: the command line, and the staircase up and down.
 * A first argument that is a command's name makes it that command instead.
 * In the background, the daemon is forked off before anything else exists,
 * and the parent waits for its word that the mount answers.
 */
#define FUSE_USE_VERSION 314
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/tools/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <fuse_opt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

struct options {
	char *source, *path;	/* owned */
	char *log;		/* owned */
	char *name;		/* owned: fsname= */
	char *decoded_cache;	/* owned: a size */
	char *hf_root, *hf_assets; /* owned */
	int foreground, debug, help, version;
};

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
"    -f                 stay in the foreground\n"
"    -d                 print every request; implies -f\n"
"    -o log=FILE        append what is logged to FILE; in the background the\n"
"                       system log has it otherwise\n"
"    -o hf_root=KEY     the key of the state dict that hf/ shows: app.model\n"
"    -o hf_assets=DIR   a folder of more files for hf/: config.json, tokenizer\n"
"    -o decoded_cache=SIZE\n"
"                       memory for stored items that are compressed: 1G, 512M\n"
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

static void print_help(void)
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

static int usage(const char *what)
{
	fprintf(stderr, "ckptfs: %s; see ckptfs --help\n", what);
	return EXIT_USAGE;
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

static int add_options(const struct options *options, struct fuse_args *args)
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

/* ---- the background -------------------------------------------------------- */

/*
 * In the child, 0 and the pipe to report on. In the parent, wait for the
 * report and return 1 with the exit status.
 */
static int go_to_background(int *ret_report, int *ret_status)
{
	int ends[2], result;
	char report;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		close(ends[0]);
		setsid();
		*ret_report = ends[1];
		return 0;
	}
	close(ends[1]);
	*ret_status = EXIT_SUCCESS;
	/* No report: it ended, and has said why. */
	if (read(ends[0], &report, 1) != 1)
		*ret_status = waitpid(pid, &result, 0) == pid &&
			      WIFEXITED(result) && WEXITSTATUS(result) ?
			      WEXITSTATUS(result) : EXIT_FAILURE;
	return 1;
}

/* Called when the mount answers. */
static void report_ready(void *context)
{
	int *report = context, null;

	if (*report < 0)
		return;
	log_background();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (chdir("/") < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(null, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0)
		log_line(LOG_LEVEL_WARNING, "detaching: %s", strerror(errno));
	if (null > STDERR_FILENO)
		close(null);
	if (write(*report, "", 1) < 0)
		log_line(LOG_LEVEL_WARNING, "reporting: %s", strerror(errno));
	close(*report);
	*report = -1;
}

/* ---- up and down ----------------------------------------------------------- */

static int explain(const char *what, int error)
{
	fprintf(stderr, "ckptfs: %s: %s\n", what, strerror(-error));
	return EXIT_FAILURE;
}

static bool parse_options(const struct options *options,
			  struct namespace_options *ret)
{
	*ret = (struct namespace_options){
		.decoded_cache = GIB,
		.hf_root = options->hf_root, .hf_assets = options->hf_assets,
	};
	return !options->decoded_cache ||
	       tool_parse_size(options->decoded_cache, &ret->decoded_cache);
}

static int serve(const struct options *options,
		 const struct namespace_options *namespace_options,
		 struct fuse_args *args, int report)
{
	struct mount_options mount_options = {
		.source = options->source, .path = options->path,
		.args = args->argv, .arg_count = args->argc,
	};
	struct namespace ns;
	struct mount *mount;
	const char *bad;
	int error, status = EXIT_SUCCESS;

	tool_raise_file_limit();
	error = mount_create(&ns, &mount_options, &mount);
	if (error == -EINVAL)
		return usage("bad options");
	if (error)
		return explain("starting", error);
	error = namespace_init(&ns, options->source, namespace_options, &bad);
	if (error) {
		status = explain(bad, error);
		goto destroy_mount;
	}
	error = mount_attach(mount);
	if (error) {
		/* libfuse has said it. */
		status = error == -EIO ? EXIT_FAILURE :
					 explain(options->path, error);
		goto finish_namespace;
	}
	error = mount_serve(mount, report_ready, &report);
	if (error) {
		log_line(LOG_LEVEL_ERROR, "serving: %s", strerror(-error));
		status = EXIT_FAILURE;
	}
	/* What the kernel holds refers to the namespace until then. */
	mount_destroy(mount);
	namespace_finish(&ns);
	return status;
finish_namespace:
	namespace_finish(&ns);
destroy_mount:
	mount_destroy(mount);
	return status;
}

static int run(const struct options *options, struct fuse_args *args)
{
	struct namespace_options namespace_options;
	int report = -1, status = EXIT_FAILURE, error;

	if (options->help) {
		print_help();
		return EXIT_SUCCESS;
	}
	if (options->version) {
		printf("ckptfs %s (libfuse %s)\n", CKPTFS_VERSION,
		       fuse_pkgversion());
		return EXIT_SUCCESS;
	}
	if (!options->source || !options->path)
		return usage("SOURCE and MOUNTPOINT are needed");
	if (!parse_options(options, &namespace_options))
		return usage("decoded_cache needs a size, such as 1G");
	if (options->log) {
		error = log_open(options->log);
		if (error) {
			fprintf(stderr, "ckptfs: %s: %s\n", options->log,
				strerror(-error));
			return EXIT_FAILURE;
		}
	}
	error = add_options(options, args);
	if (!error && !options->foreground && !options->debug)
		error = go_to_background(&report, &status);
	if (error < 0)
		fprintf(stderr, "ckptfs: %s\n", strerror(-error));
	if (error)
		return status;
	return serve(options, &namespace_options, args, report);
}

/* Descriptors 0 to 2 are never files of ours, also when we were started
 * without them. Writing to them fails, as it would have. */
static void fill_standard_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct options options = { .source = NULL };
	int status;

	fill_standard_streams();
	if (argc > 1 && tool_run(argc - 1, argv + 1, &status))
		return status;
	if (fuse_opt_parse(&args, &options, specs, take_argument))
		status = usage("bad arguments");
	else
		status = run(&options, &args);
	fuse_opt_free_args(&args);
	free(options.source);
	free(options.path);
	free(options.log);
	free(options.name);
	free(options.decoded_cache);
	free(options.hf_root);
	free(options.hf_assets);
	return status;
}
