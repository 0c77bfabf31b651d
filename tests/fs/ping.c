/*
 * Shows that messages of every size get from each rank to each other one.
 * Prints "RANK HOST ok" on every rank.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIZE_MAX_MIB = 16 };

static void fill(unsigned char *buffer, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		buffer[i] = (unsigned char)((i * 2654435761u + seed) >> 13);
}

static size_t differs(const unsigned char *a, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		if (a[i] !=
		    (unsigned char)((i * 2654435761u + seed) >> 13))
			return i + 1;
	return 0;
}

int main(int argc, char **argv)
{
	const size_t most = (size_t)SIZE_MAX_MIB << 20;
	unsigned char *out = malloc(most), *in = malloc(most);
	int rank, ranks;
	char host[256] = "";

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	gethostname(host, sizeof(host) - 1);
	if (!out || !in)
		MPI_Abort(MPI_COMM_WORLD, 2);
	for (size_t size = 1; size <= most; size *= 16) {
		for (int step = 1; step < ranks; step++) {
			int to = (rank + step) % ranks;
			int from = (rank - step + ranks) % ranks;

			fill(out, size, (unsigned)(rank * 31 + to));
			MPI_Sendrecv(out, (int)size, MPI_BYTE, to, 7, in,
				     (int)size, MPI_BYTE, from, 7,
				     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
			if (differs(in, size, (unsigned)(from * 31 + rank))) {
				printf("%d %s wrong bytes from %d\n", rank,
				       host, from);
				MPI_Abort(MPI_COMM_WORLD, 1);
			}
		}
	}
	printf("%d %s ok\n", rank, host);
	MPI_Finalize();
	free(in);
	free(out);
	return 0;
}
