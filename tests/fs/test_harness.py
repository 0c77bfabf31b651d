"""The harness of the tests with several ranks, tested by itself."""

import os
import subprocess

import pytest

import job as module
from mounting import is_mounted, patience, poll

# Messages of every size from each rank to each other one; prints
# "RANK HOST ok" on every rank.
PING = r"""
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
"""


@pytest.fixture(scope="module")
def ping(tmp_path_factory):
    program = tmp_path_factory.mktemp("ping") / "ping"
    program.with_suffix(".c").write_text(PING)
    subprocess.run(["mpicc", "-O1", "-o", program,
                    program.with_suffix(".c")],
                   check=True, env=module.environment())
    return program


def pings(command, ranks, env):
    done = subprocess.run(command, capture_output=True, text=True, env=env,
                          timeout=patience(50))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = sorted(done.stdout.splitlines())
    assert len(lines) == ranks, done.stdout + done.stderr
    return [line.split() for line in lines]


@pytest.mark.parametrize("transport", [None, "vader", "tcp"])
def test_messages_on_one_machine(ping, transport):
    env = module.environment("ping-" + str(os.getpid()), transport)
    lines = pings(["mpirun", "--oversubscribe", "-n", "4", ping], 4, env)
    assert [(n, ok) for n, _, ok in lines] == \
        [(str(n), "ok") for n in range(4)]


def test_messages_between_hosts_over_tcp(ping, hosts):
    tag = "ping-%d" % os.getpid()
    command = [*hosts.enter(0), "mpirun", *hosts.mpirun_options(3), ping]
    lines = pings(command, 3, module.environment(tag))
    assert lines == [[str(n), "h%d" % n, "ok"] for n in range(3)]
    assert module.processes_of(tag, "") == []


def test_hosts_are_apart(hosts, tmp_path):
    """Networks and names differ; files and mounts are shared."""
    def ask(host, *command):
        return hosts.run(host, command, check=True, text=True,
                         capture_output=True).stdout

    assert [ask(n, "hostname").strip() for n in range(3)] == hosts.names
    spaces = {ask(n, "readlink", "/proc/self/ns/net") for n in range(3)}
    assert len(spaces) == 3
    assert os.readlink("/proc/self/ns/net") not in {s.strip() for s in spaces}
    point = tmp_path / "point"
    point.mkdir()
    ask(1, "mount", "-t", "tmpfs", "none", str(point))
    assert is_mounted(point)
    ask(2, "umount", str(point))
    assert not is_mounted(point)


def test_hosts_and_a_pulled_cable(hosts):
    def reaches(host, other):
        script = "import socket; socket.create_connection(('%s', 9), 0.3)" % \
            hosts.address(other)
        done = hosts.run(host, ["python3", "-c", script], text=True,
                         capture_output=True)
        # Nobody listens there: to be refused is an answer.
        return "ConnectionRefusedError" in done.stderr

    assert reaches(0, 1) and reaches(1, 2)
    for cut, mend in (hosts.cut, hosts.mend), (hosts.disable, hosts.enable):
        try:
            cut(1)
            assert not reaches(0, 1) and not reaches(1, 2)
            assert reaches(0, 2)
        finally:
            mend(1)
        poll(lambda: reaches(0, 1) and reaches(1, 2), 10, "the link is back")
