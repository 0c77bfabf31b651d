"""Rows about several ranks: daemons that mpirun starts, one mount for each.

All of them run on this machine and share its processors, two of them on hosts
of network name spaces where the row says TCP.  The stores of the ranks have
hard links to the files of the other rows' checkpoints, and the daemons are told
to send each other everything, as if those were other machines' disks.

What is compared is the same over bare MPI, by bench_mpi.c: who waits there
never sleeps, and no kernel, no second process and no page cache is behind it.
"""

import contextlib
import functools
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import checkpoints
from checkpoints import data_files
from machine import (ENVIRONMENT, Failed, Ranks, dd, mpirun_command, run,
                     run_mpi, run_seconds_of, status_field, switches_of)
from rows import IDLE_SECONDS, MIB, Result, Row, median

TESTS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fs"
OUTSTANDING = (1, 4)        # as one reader, and as the kernel reading ahead
PINGS = 5000
SLICES = 500
STREAM_SECONDS = 3


# What is needed

@functools.lru_cache(maxsize=None)
def no_ranks(bench):
    if not bench.bare_mpi:
        return "there is no mpirun or no mpicc"
    if "force_mpi" not in run(bench.program, "--help").stdout:
        return "ckptfs knows nothing of ranks"
    return None


def hosts_module():
    """The tests' hosts of network name spaces."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    return importlib.import_module("hosts")


@functools.lru_cache(maxsize=None)
def no_hosts(bench):
    try:
        return no_ranks(bench) or hosts_module().missing() or None
    except ImportError:
        return "there is no tests/fs/hosts.py"



@contextlib.contextmanager
def stores(bench, name, place, count):
    """A folder with store0, store1, ...: place(i) is the rank that has the
    i-th data file; rank 0 has all else."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ranks-", dir=bench.store))
    try:
        for rank in range(count):
            (folder / ("store%d" % rank)).mkdir()
        source = bench.store / name
        data = data_files(source)
        for file in source.iterdir():
            rank = place(data.index(file)) if file in data else 0
            os.link(file, folder / ("store%d" % rank) / file.name)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def network(transport):
    """None where ranks are on one host, else hosts."""
    if transport == "vader":
        yield None
        return
    with hosts_module().Hosts(2) as hosts:
        yield hosts


# Throughput

def bare_read(bench, transport, hosts, outstanding, files):
    command = mpirun_command(2, transport, hosts)
    return float(run_mpi(command, bench.bare_mpi, "read", outstanding, *files))


def remote_read(bench, transport):
    """Everything is at rank 1, and who reads at rank 0."""
    files = data_files(bench.store / "rows")
    times = {"bare %d" % n: [] for n in OUTSTANDING}
    times.update({"remote": [], "dropped": [], "local": []})
    with network(transport) as hosts, \
            stores(bench, "rows", lambda index: 1, 2) as folder:
        command = mpirun_command(2, transport, hosts)
        for _ in range(bench.repeats):
            for n in OUTSTANDING:
                times["bare %d" % n].append(
                    bare_read(bench, transport, hosts, n, files))
            with bench.mount(bench.store / "rows"):
                times["local"].append(dd(bench.point / "tensors" / "w"))
            with Ranks(bench.program, command, folder, 2) as ranks:
                tensor = ranks.points[0] / "tensors" / "w"
                times["remote"].append(dd(tensor))
                bench.drop(tensor)
                times["dropped"].append(dd(tensor))
    limit = max(median(times["local"]) / 0.9,
                min(median(times["bare %d" % n]) for n in OUTSTANDING) / 0.85)
    return Result(limit / median(times["remote"]), "",
                  "%s; mount kept: %s; bare MPI: %s, with 4 under way %s; "
                  "local: %s" % tuple(bench.speed(times[key]) for key in (
                      "remote", "dropped", "bare 1", "bare 4", "local")),
                  times)


def spread_read(bench):
    times = {"spread": [], "dropped": [], "local": []}
    command = mpirun_command(4, "vader")
    with stores(bench, "rows", lambda index: index, 4) as folder:
        for _ in range(bench.repeats):
            with bench.mount(bench.store / "rows"):
                times["local"].append(dd(bench.point / "tensors" / "w"))
            with Ranks(bench.program, command, folder, 4) as ranks:
                tensor = ranks.points[0] / "tensors" / "w"
                times["spread"].append(dd(tensor))
                bench.drop(tensor)
                times["dropped"].append(dd(tensor))
    return Result(median(times["local"]) / median(times["spread"]), "",
                  "%s over %s; mount kept: %s" % tuple(
                      bench.speed(times[key])
                      for key in ("spread", "local", "dropped")), times)


def stream_all(bench, readers):
    """GB/s of each reader, a list of files, all at once."""
    running = [subprocess.Popen(
        [bench.helper, "stream", str(STREAM_SECONDS), *map(str, files)],
        env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True) for files in readers]
    outputs = [process.communicate() for process in running]
    for process, (_, trouble) in zip(running, outputs):
        if process.returncode != 0:
            raise Failed("stream: %s" % trouble.strip())
    return [float(text) / STREAM_SECONDS / 1e9 for text, _ in outputs]


def fairness(bench):
    """Of each turn; four shards of each tensor at four ranks."""
    samples = {"speeds": [], "share": []}
    names = checkpoints.QUAD
    command = mpirun_command(4, "vader")
    with stores(bench, "quad", lambda index: index, 4) as folder:
        for _ in range(bench.repeats):
            with Ranks(bench.program, command, folder, 4) as ranks:
                speeds = stream_all(bench, [
                    [point / "tensors" / name
                     for name in names[rank:] + names[:rank]]
                    for rank, point in enumerate(ranks.points)])
            samples["speeds"].append(speeds)
            samples["share"].append(min(speeds) / max(speeds))
    return Result(median(samples["share"]), "",
                  "from %.2f to %.2f; %.2f GB/s together" % (
                      min(samples["share"]), max(samples["share"]),
                      median([sum(s) for s in samples["speeds"]])), samples)


# Latency

def slices_at(bench, point):
    done = run(bench.helper, "slices", point / "tensors" / "w", SLICES)
    return [float(word) / 1000 for word in done.stdout.split()]


def slice_latency(bench, transport):
    out = {key: [] for key in ("ping", "bell", "peer", "local", "peer whole",
                               "local whole")}
    with network(transport) as hosts, \
            stores(bench, "rows", lambda index: 1, 2) as folder:
        command = mpirun_command(2, transport, hosts)
        for _ in range(bench.repeats):
            for key in ("ping", "bell"):
                out[key].append(float(run_mpi(
                    command, bench.bare_mpi, key, PINGS)) / 1000)
            with Ranks(bench.program, command, folder, 2) as ranks:
                # The one that has the files, and the one that has not.
                for rank, key in ((1, "local"), (0, "peer")):
                    point = ranks.points[rank]
                    (point / "tensors" / "w[0:1,0:1024]").read_bytes()
                    read, whole = slices_at(bench, point)
                    out[key].append(read)
                    out[key + " whole"].append(whole)
    return Result(median(out["peer"]) / median(out["ping"]), "x",
                  "%.0f us against %.1f us; asleep until a datagram comes "
                  "%.0f us; the same slice at its own rank %.0f us; with open "
                  "and close %.0f us against %.0f us" % tuple(
                      median(out[key]) for key in (
                          "peer", "ping", "bell", "local", "peer whole",
                          "local whole")), out)


# Catalogs

def first_lookups(points, name):
    """Seconds until each has answered, all asked at once."""
    start = threading.Barrier(len(points) + 1)
    ends = {}

    def look(point):
        start.wait()
        os.stat(point / "tensors" / name)
        ends[point] = time.perf_counter()
    threads = [threading.Thread(target=look, args=(p,)) for p in points]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    if len(ends) != len(points):
        raise Failed("a lookup failed")
    return max(ends.values()) - began


def memory_of(pid):
    return status_field(pathlib.Path("/proc", str(pid), "status"),
                        "VmRSS") * 1024


@functools.lru_cache(maxsize=None)
def catalogs(bench):
    """Of the large checkpoint, which rank 0 has made: seconds to three others,
    and the bytes that they, and rank 0, have grown by over its size."""
    out = {"seconds": [], "others": [], "builder": [], "bytes": []}
    name = checkpoints.wide_name(checkpoints.WIDE // 2)
    command = mpirun_command(4, "vader")
    with stores(bench, "wide", lambda index: 0, 4) as folder:
        for _ in range(bench.repeats):
            with Ranks(bench.program, command, folder, 4) as ranks:
                before = [memory_of(pid) for pid in ranks.pids]
                os.stat(ranks.points[0] / "tensors" / name)
                out["seconds"].append(first_lookups(ranks.points[1:], name))
                after = [memory_of(pid) for pid in ranks.pids]
                size = ranks.status(3)["catalogs"][0]["bytes"]
            grown = [(a - b) / size for a, b in zip(after, before)]
            out["bytes"].append(size)
            out["builder"].append(grown[0])
            out["others"].append(max(grown[1:]))
    return out


def catalog_time(bench):
    out = catalogs(bench)
    return Result(median(out["seconds"]), "s",
                  "%.1f MiB to each; from %.3f to %.3f s" % (
                      median(out["bytes"]) / MIB, min(out["seconds"]),
                      max(out["seconds"])), out)


def catalog_memory(bench):
    out = catalogs(bench)
    return Result(median(out["others"]), "",
                  "of %.1f MiB; from %.2f to %.2f; at the rank that made it "
                  "%.2f" % (median(out["bytes"]) / MIB, min(out["others"]),
                            max(out["others"]), median(out["builder"])), out)


# Doing nothing

@functools.lru_cache(maxsize=None)
def idle(bench):
    """Of each daemon after reads: share of a processor, wake-ups a second."""
    command = mpirun_command(4, "vader")
    with stores(bench, "rows", lambda index: index, 4) as folder, \
            Ranks(bench.program, command, folder, 4) as ranks:
        for point in ranks.points:
            dd(point / "tensors" / "w")
        time.sleep(2)
        before = [(run_seconds_of(p), switches_of(p)) for p in ranks.pids]
        time.sleep(IDLE_SECONDS)
        after = [(run_seconds_of(p), switches_of(p)) for p in ranks.pids]
    return {"share": [(a[0] - b[0]) / IDLE_SECONDS
                      for a, b in zip(after, before)],
            "wakeups": [(a[1] - b[1]) / IDLE_SECONDS
                        for a, b in zip(after, before)]}


def idle_share(bench):
    found = idle(bench)
    return Result(100 * max(found["share"]), "%",
                  "of a processor, at most; together %.2f %%" % (
                      100 * sum(found["share"])), found)


def idle_wakeups(bench):
    found = idle(bench)
    return Result(max(found["wakeups"]), "/s",
                  "of all threads of a daemon, at most; least %.1f/s" %
                  min(found["wakeups"]), found)


ROWS = (
    Row("remote", "cold read from another rank, shared memory, over its limit",
        1, "", True, ("rows",), lambda b: remote_read(b, "vader"),
        missing=no_ranks),
    Row("remote-tcp", "cold read from another host, TCP, over its limit",
        1, "", True, ("rows",), lambda b: remote_read(b, "tcp"),
        missing=no_hosts),
    Row("spread", "cold read, 4 shards at 4 ranks, over all local", 0.7, "",
        True, ("rows",), spread_read, missing=no_ranks),
    Row("slice", "slice of 4 KiB of another rank, over a bare ping-pong", 3,
        "x", False, ("rows",), lambda b: slice_latency(b, "vader"),
        missing=no_ranks),
    Row("slice-tcp", "slice of 4 KiB of another host, over a bare ping-pong",
        3, "x", False, ("rows",), lambda b: slice_latency(b, "tcp"),
        missing=no_hosts),
    Row("fair", "4 daemons and 4 readers: slowest over fastest", 0.5, "",
        True, ("quad",), fairness, missing=no_ranks),
    Row("catalog", "catalog of 100 000 tensors to 3 other ranks", 1, "s",
        False, ("wide",), catalog_time, missing=no_ranks),
    Row("catalog-memory", "memory of each of them, over its size", 1.2, "",
        False, ("wide",), catalog_memory, missing=no_ranks),
    Row("ranks-cpu", "processor time of an idle daemon of 4", 1, "%", False,
        ("rows",), idle_share, missing=no_ranks),
    Row("ranks-idle", "wake-ups a second of it", 5, "/s", False, ("rows",),
        idle_wakeups, missing=no_ranks),
)
