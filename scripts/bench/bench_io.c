/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark needs from C:
 *
 *   bench_io drop FILE...       drops the page cache of the files; fails if a
 *                               page stays
 *   bench_io open FILE COUNT    opens, reads whole and closes FILE, COUNT
 *                               times; prints nanoseconds per time
 *   bench_io slices FILE COUNT  opens FILE[I:I+1,0:1024] for each I below
 *                               COUNT, and reads its 4 KiB; prints the medians
 *                               of the read, and of opening, reading and
 *                               closing, nanoseconds
 *   bench_io stream SECONDS FILE...
 *                               reads the files again and again for so long,
 *                               each time not from the page cache; prints
 *                               bytes
 *   bench_io run COMMAND...     runs COMMAND; a last line on standard output
 *                               has its seconds and the KiB of memory that it
 *                               had at most
 *
 * The memory of a process counts from before its exec: who starts it must be
 * small for it to be the command's own.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static double nanoseconds_since(const struct timespec *start)
{
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	return (double)(end.tv_sec - start->tv_sec) * 1e9 +
	       (double)(end.tv_nsec - start->tv_nsec);
}

/* Pages of the file that are in the page cache, -1 for an error. */
static long resident_pages(int fd, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t count = (size + page - 1) / page;
	unsigned char *there;
	void *map;
	long resident = 0;
	size_t i;

	if (size == 0)
		return 0;
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -1;
	there = calloc(count, 1);
	if (there == NULL || mincore(map, size, there) < 0)
		resident = -1;
	for (i = 0; resident >= 0 && i < count; i++)
		resident += there[i] & 1;
	free(there);
	munmap(map, size);
	return resident;
}

static int drop(const char *path)
{
	struct stat status;
	long resident = -1;
	int fd, tries;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(path);
	if (fstat(fd, &status) < 0) {
		close(fd);
		return fail(path);
	}
	/* Dirty pages stay; a file that cannot be synced has none. Pages on
	 * the way to a list of the kernel stay at the first try. */
	(void)fsync(fd);
	for (tries = 0; tries < 3 && resident != 0; tries++) {
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		resident = resident_pages(fd, (size_t)status.st_size);
	}
	close(fd);
	if (resident != 0) {
		fprintf(stderr, "%s: %ld pages stay in the page cache\n", path,
			resident);
		return 1;
	}
	return 0;
}

static int open_loop(const char *path, long count)
{
	static char buffer[1 << 20];
	struct timespec start;
	long i;
	int fd;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (i = 0; i < count; i++) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return fail(path);
		if (read(fd, buffer, sizeof(buffer)) <= 0)
			return fail(path);
		close(fd);
	}
	printf("%.1f\n", nanoseconds_since(&start) / (double)count);
	return 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, long count)
{
	qsort(values, (size_t)count, sizeof(*values), compare);
	return values[count / 2];
}

static int read_slices(const char *path, long count)
{
	double *reads = calloc((size_t)count, sizeof(*reads));
	double *wholes = calloc((size_t)count, sizeof(*wholes));
	static char buffer[4096], name[4096];
	long i;

	if (reads == NULL || wholes == NULL)
		return fail("calloc");
	for (i = 0; i < count; i++) {
		struct timespec start, opened;
		int fd;

		snprintf(name, sizeof(name), "%s[%ld:%ld,0:1024]", path, i,
			 i + 1);
		clock_gettime(CLOCK_MONOTONIC, &start);
		fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return fail(name);
		clock_gettime(CLOCK_MONOTONIC, &opened);
		if (read(fd, buffer, sizeof(buffer)) != sizeof(buffer))
			return fail(name);
		reads[i] = nanoseconds_since(&opened);
		close(fd);
		wholes[i] = nanoseconds_since(&start);
	}
	printf("%.0f %.0f\n", median(reads, count), median(wholes, count));
	free(reads);
	free(wholes);
	return 0;
}

/* A file's pages are dropped when it was read. */
static int stream(double seconds, char **paths, int count)
{
	static char buffer[1 << 20];
	struct timespec start;
	double total = 0;
	int i;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (i = 0;; i = (i + 1) % count) {
		int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
		ssize_t got = 1;

		if (fd < 0)
			return fail(paths[i]);
		while (got > 0 && nanoseconds_since(&start) < seconds * 1e9) {
			got = read(fd, buffer, sizeof(buffer));
			if (got < 0)
				return fail(paths[i]);
			total += (double)got;
		}
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		close(fd);
		if (got > 0)
			break;
	}
	printf("%.0f\n", total);
	return 0;
}

static int run(char **command)
{
	struct timespec start;
	struct rusage usage;
	int status;
	pid_t pid;

	clock_gettime(CLOCK_MONOTONIC, &start);
	pid = fork();
	if (pid < 0)
		return fail("fork");
	if (pid == 0) {
		execvp(command[0], command);
		_exit(fail(command[0]));
	}
	if (wait4(pid, &status, 0, &usage) < 0)
		return fail("wait4");
	printf("%.6f %ld\n", nanoseconds_since(&start) / 1e9, usage.ru_maxrss);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int main(int argc, char **argv)
{
	int i, status = 0;

	if (argc >= 3 && strcmp(argv[1], "drop") == 0) {
		for (i = 2; i < argc; i++)
			status |= drop(argv[i]);
		return status;
	}
	if (argc == 4 && strcmp(argv[1], "open") == 0 && atol(argv[3]) > 0)
		return open_loop(argv[2], atol(argv[3]));
	if (argc == 4 && strcmp(argv[1], "slices") == 0 && atol(argv[3]) > 0)
		return read_slices(argv[2], atol(argv[3]));
	if (argc >= 4 && strcmp(argv[1], "stream") == 0)
		return stream(atof(argv[2]), argv + 3, argc - 3);
	if (argc >= 3 && strcmp(argv[1], "run") == 0)
		return run(argv + 2);
	fprintf(stderr, "usage: bench_io drop FILE... | open FILE COUNT | "
			"slices FILE COUNT | stream SECONDS FILE... | "
			"run COMMAND...\n");
	return 2;
}
