/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ranks are compared with: the same over bare MPI. Of two ranks, 0 asks,
 * 1 answers, and 0 prints.
 *
 *   bench_mpi read OUTSTANDING FILE...  FILE... in parts of 1 MiB, of which
 *                                       so many are under way; seconds
 *   bench_mpi ping COUNT                one small message there and 4 KiB
 *                                       back; the median, nanoseconds
 *   bench_mpi bell COUNT                likewise, but who waits for a message
 *                                       sleeps until a datagram says that it
 *                                       is there, as idle daemons do
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <mpi.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PART = 1 << 20, OUTSTANDING_MAX = 16, FILE_MAX = 64, SMALL = 4096 };
enum { TAG_REQUEST = 100 };

struct request {
	int slot;		/* its answer's tag; -1: no more */
	int file;
	long offset, size;
	char more[104];		/* those of the daemons are not smaller */
};

static _Noreturn void fail(const char *what)
{
	perror(what);
	MPI_Abort(MPI_COMM_WORLD, 1);
	abort();
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- read ------------------------------------------------------------------ */

static void answer_reads(char **paths, int count)
{
	MPI_Request sends[OUTSTANDING_MAX];
	char *rooms[OUTSTANDING_MAX] = { NULL };
	struct request request;
	int fds[FILE_MAX], i;

	for (i = 0; i < count; i++) {
		fds[i] = open(paths[i], O_RDONLY | O_CLOEXEC);
		if (fds[i] < 0)
			fail(paths[i]);
	}
	for (i = 0; i < OUTSTANDING_MAX; i++)
		sends[i] = MPI_REQUEST_NULL;
	MPI_Barrier(MPI_COMM_WORLD);
	for (;;) {
		MPI_Recv(&request, sizeof(request), MPI_BYTE, 0, TAG_REQUEST,
			 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		if (request.slot < 0)
			break;
		i = request.slot;
		MPI_Wait(&sends[i], MPI_STATUS_IGNORE);
		if (!rooms[i])
			rooms[i] = malloc(PART);
		if (!rooms[i] ||
		    pread(fds[request.file], rooms[i], (size_t)request.size,
			  request.offset) != request.size)
			fail(paths[request.file]);
		MPI_Isend(rooms[i], (int)request.size, MPI_BYTE, 0, i,
			  MPI_COMM_WORLD, &sends[i]);
	}
	MPI_Waitall(OUTSTANDING_MAX, sends, MPI_STATUSES_IGNORE);
	for (i = 0; i < count; i++)
		close(fds[i]);
	for (i = 0; i < OUTSTANDING_MAX; i++)
		free(rooms[i]);
}

struct reader {
	int count, file;	/* of files; the one that is read */
	long sizes[FILE_MAX], offset;
	char *slots[OUTSTANDING_MAX];
	MPI_Request receives[OUTSTANDING_MAX];
};

/* False: everything was asked for. */
static bool ask_next(struct reader *r, int slot)
{
	struct request request = { .slot = slot };

	while (r->file < r->count && r->offset == r->sizes[r->file]) {
		r->file++;
		r->offset = 0;
	}
	if (r->file == r->count)
		return false;
	request.file = r->file;
	request.offset = r->offset;
	request.size = r->sizes[r->file] - r->offset;
	if (request.size > PART)
		request.size = PART;
	r->offset += request.size;
	MPI_Irecv(r->slots[slot], PART, MPI_BYTE, 1, slot, MPI_COMM_WORLD,
		  &r->receives[slot]);
	MPI_Send(&request, sizeof(request), MPI_BYTE, 1, TAG_REQUEST,
		 MPI_COMM_WORLD);
	return true;
}

static void ask_reads(int outstanding, char **paths, int count)
{
	const struct request end = { .slot = -1 };
	struct reader r = { .count = count };
	int i, slot, waiting = 0;
	double start;

	for (i = 0; i < count; i++) {
		struct stat status;

		if (stat(paths[i], &status) < 0)
			fail(paths[i]);
		r.sizes[i] = status.st_size;
	}
	for (i = 0; i < outstanding; i++) {
		r.slots[i] = malloc(PART);
		if (!r.slots[i])
			fail("malloc");
		r.receives[i] = MPI_REQUEST_NULL;
	}
	MPI_Barrier(MPI_COMM_WORLD);
	start = now();
	for (i = 0; i < outstanding; i++)
		waiting += ask_next(&r, i);
	while (waiting > 0) {
		MPI_Waitany(outstanding, r.receives, &slot, MPI_STATUS_IGNORE);
		if (!ask_next(&r, slot))
			waiting--;
	}
	printf("%.6f\n", now() - start);
	MPI_Send(&end, sizeof(end), MPI_BYTE, 1, TAG_REQUEST, MPI_COMM_WORLD);
	for (i = 0; i < outstanding; i++)
		free(r.slots[i]);
}

/* ---- bells ----------------------------------------------------------------- */

struct bell {
	int fd;			/* -1: nobody sleeps */
	struct sockaddr_in other;
};

/* Of this host; loopback is right where there is no network. */
static struct in_addr own_address(void)
{
	struct in_addr found = { htonl(INADDR_LOOPBACK) };
	struct ifaddrs *list, *entry;

	if (getifaddrs(&list) < 0)
		fail("getifaddrs");
	for (entry = list; entry; entry = entry->ifa_next)
		if (entry->ifa_addr && entry->ifa_addr->sa_family == AF_INET &&
		    entry->ifa_flags & IFF_UP &&
		    !(entry->ifa_flags & IFF_LOOPBACK))
			found = ((struct sockaddr_in *)(void *)
				 entry->ifa_addr)->sin_addr;
	freeifaddrs(list);
	return found;
}

static void make_bell(struct bell *bell, int rank)
{
	struct sockaddr_in own = { .sin_family = AF_INET };
	socklen_t size = sizeof(own);

	bell->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (bell->fd < 0 ||
	    bind(bell->fd, (struct sockaddr *)&own, sizeof(own)) < 0 ||
	    getsockname(bell->fd, (struct sockaddr *)&own, &size) < 0)
		fail("socket");
	own.sin_addr = own_address();
	MPI_Sendrecv(&own, sizeof(own), MPI_BYTE, 1 - rank, 0, &bell->other,
		     sizeof(bell->other), MPI_BYTE, 1 - rank, 0,
		     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

static void send_and_ring(struct bell *bell, int rank, int size)
{
	static char buffer[SMALL];
	MPI_Request request;

	MPI_Isend(buffer, size, MPI_BYTE, 1 - rank, 0, MPI_COMM_WORLD,
		  &request);
	if (bell->fd >= 0 &&
	    sendto(bell->fd, "", 1, 0, (struct sockaddr *)&bell->other,
		   sizeof(bell->other)) < 0)
		fail("sendto");
	MPI_Wait(&request, MPI_STATUS_IGNORE);
}

static void sleep_and_receive(struct bell *bell, int rank)
{
	static char buffer[SMALL];
	struct pollfd fd = { .fd = bell->fd, .events = POLLIN };
	MPI_Request request;

	MPI_Irecv(buffer, SMALL, MPI_BYTE, 1 - rank, 0, MPI_COMM_WORLD,
		  &request);
	if (bell->fd >= 0 && (poll(&fd, 1, -1) != 1 ||
			      recv(bell->fd, &(char){ 0 }, 1, 0) < 0))
		fail("poll");
	MPI_Wait(&request, MPI_STATUS_IGNORE);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void ping(int rank, int count, bool with_bells)
{
	struct bell bell = { .fd = -1 };
	double *times = calloc((size_t)count, sizeof(*times)), start;
	int i;

	if (!times)
		fail("calloc");
	MPI_Barrier(MPI_COMM_WORLD);
	if (with_bells)
		make_bell(&bell, rank);
	for (i = 0; i < count && rank == 1; i++) {
		sleep_and_receive(&bell, rank);
		send_and_ring(&bell, rank, SMALL);
	}
	for (i = 0; i < count && rank == 0; i++) {
		start = now();
		send_and_ring(&bell, rank, (int)sizeof(struct request));
		sleep_and_receive(&bell, rank);
		times[i] = now() - start;
	}
	qsort(times, (size_t)count, sizeof(*times), compare);
	if (rank == 0)
		printf("%.0f\n", times[count / 2] * 1e9);
	free(times);
	if (bell.fd >= 0)
		close(bell.fd);
}

int main(int argc, char **argv)
{
	int rank, ranks, number;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	number = argc > 2 ? atoi(argv[2]) : 0;
	if (ranks == 2 && argc > 3 && strcmp(argv[1], "read") == 0 &&
	    number > 0 && number <= OUTSTANDING_MAX && argc - 3 <= FILE_MAX) {
		if (rank == 0)
			ask_reads(number, argv + 3, argc - 3);
		else
			answer_reads(argv + 3, argc - 3);
	} else if (ranks == 2 && argc == 3 && number > 0 &&
		   (strcmp(argv[1], "ping") == 0 ||
		    strcmp(argv[1], "bell") == 0)) {
		ping(rank, number, argv[1][0] == 'b');
	} else {
		fprintf(stderr, "usage: mpirun -n 2 bench_mpi read OUTSTANDING "
				"FILE... | ping COUNT | bell COUNT\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	MPI_Finalize();
	return 0;
}
