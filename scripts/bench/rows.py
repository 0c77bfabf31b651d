"""The rows of the benchmark: what is measured, and the goals.

Whatever is compared is measured in turns (A B A B ...), and medians are
compared.  "Cold" means a new mount whose first reader this is: nothing is in
the page cache of the mount, and the daemon has not opened a data file.  What
a second reader sees whose page cache was dropped (posix_fadvise) while the
mount stayed is told beside it.
"""

import functools
import os
import shutil
import statistics
import time
from dataclasses import dataclass, field

import checkpoints
from checkpoints import data_files
from machine import (Failed, Loader, Mount, dd, dd_all, dd_parallel, run,
                     seconds_of, usage_of)

MIB = 2**20
TORCH = ("torch.distributed.checkpoint",)
SAFETENSORS = (*TORCH, "safetensors.torch")
IDLE_SECONDS = 10


@dataclass
class Result:
    value: float
    unit: str = ""
    detail: str = ""
    samples: dict = field(default_factory=dict)


@dataclass
class Row:
    key: str
    title: str
    goal: float             # or None
    unit: str
    more_is_better: bool
    needs: tuple            # checkpoints
    measure: object
    modules: tuple = ()     # of Python
    commands: tuple = ()    # of ckptfs
    missing: object = None  # says of a Bench what else is not there, or None

    def met(self, value):
        """None where there is no goal."""
        if self.goal is None:
            return None
        return value >= self.goal if self.more_is_better \
            else value <= self.goal


def median(values):
    return statistics.median(values)


def total_mib(files):
    return sum(map(os.path.getsize, files)) / MIB


def ratio(numerators, denominators):
    return median(numerators) / median(denominators)


class Bench:
    """Everything a row needs to know. Measurements that serve several rows
    are done once."""

    def __init__(self, program, helper, store, disk, point, repeats, mib,
                 bare_mpi):
        self.program, self.helper = program, helper
        self.store, self.disk, self.point = store, disk, point
        self.repeats, self.mib = repeats, mib
        self.bare_mpi = bare_mpi    # None: there is no MPI

    def mount(self, source):
        return Mount(self.program, source, self.point)

    def usage(self, *command):
        """Of any program."""
        return usage_of(self.helper, *command)

    def command(self, *words):
        """Usage of ckptfs WORDS."""
        return self.usage(self.program, *words)

    def has_command(self, name):
        words = run(self.program, name, "--help").stdout.split()
        return words[:3] == ["usage:", "ckptfs", name]

    def drop(self, *paths):
        run(self.helper, "drop", *paths)

    def speed(self, seconds, mib=None):
        return "%.2f GB/s" % ((mib or self.mib) * MIB / 1e9 / median(seconds))

    def load_shape(self):
        return self.mib * MIB // (4 * checkpoints.COLUMNS), checkpoints.COLUMNS

    @functools.lru_cache(maxsize=None)
    def reads(self, name):
        """Seconds of the ways to read the tensor of a checkpoint."""
        files = data_files(self.store / name)
        tensor = self.point / "tensors" / "w"
        direct = ("bs=16M", "iflag=direct")
        times = {k: [] for k in ("plain", "first", "second", "dropped",
                                 "direct", "direct again")}
        dd_all(files)
        for _ in range(self.repeats):
            times["plain"].append(dd_all(files))
            with self.mount(self.store / name):
                times["first"].append(dd(tensor))
                times["plain"].append(dd_all(files))
                times["second"].append(dd(tensor))
                self.drop(tensor)
                times["plain"].append(dd_all(files))
                times["dropped"].append(dd(tensor))
            times["plain"].append(dd_all(files))
            with self.mount(self.store / name):
                times["direct"].append(dd(tensor, *direct))
                times["plain"].append(dd_all(files))
                times["direct again"].append(dd(tensor, *direct))
        return times

    @functools.lru_cache(maxsize=None)
    def parses(self):
        """Of the large checkpoint: seconds to the first name, KiB after."""
        out = {"seconds": [], "small": [], "rss": [], "anonymous": []}
        name = checkpoints.wide_name(checkpoints.WIDE // 2)
        for _ in range(self.repeats):
            for source, tensor, key in (("small", "w", "small"),
                                        ("wide", name, "seconds")):
                start = time.perf_counter()
                with self.mount(self.store / source) as mount:
                    os.stat(self.point / "tensors" / tensor)
                    out[key].append(time.perf_counter() - start)
                    if source == "wide":
                        out["rss"].append(mount.status("VmRSS"))
                        out["anonymous"].append(mount.status("RssAnon"))
        return out


# Reading

def read_row(bench, name, key, again):
    times = bench.reads(name)
    detail = "%s over %s" % (bench.speed(times[key]),
                             bench.speed(times["plain"]))
    if again:
        detail += "; %s: %.2f" % ({"dropped": "mount kept",
                                   "direct again": "second read"}[again],
                                  ratio(times["plain"], times[again]))
    return Result(ratio(times["plain"], times[key]), "", detail, times)


def read_disk(bench):
    folder = bench.disk / "rows"
    if not (folder / ".metadata").exists():
        shutil.copytree(bench.store / "rows", folder)
        os.sync()
    files = data_files(folder)
    everything = [folder / ".metadata", *files]
    times = {"plain": [], "first": []}
    for _ in range(bench.repeats):
        bench.drop(*everything)
        times["plain"].append(dd_all(files))
        bench.drop(*everything)
        with bench.mount(folder):
            times["first"].append(dd(bench.point / "tensors" / "w"))
    return Result(ratio(times["plain"], times["first"]), "",
                  "%s over %s" % (bench.speed(times["first"]),
                                  bench.speed(times["plain"])), times)


def read_parallel(bench):
    files = data_files(bench.store / "quad")
    tensors = [bench.point / "tensors" / n for n in checkpoints.QUAD]
    times = {"plain": [], "mount": []}
    dd_parallel(files)
    for _ in range(bench.repeats):
        times["plain"].append(dd_parallel(files))
        with bench.mount(bench.store / "quad"):
            times["mount"].append(dd_parallel(tensors))
    mib = 4 * bench.mib
    return Result(ratio(times["plain"], times["mount"]), "",
                  "%s over %s" % (bench.speed(times["mount"], mib),
                                  bench.speed(times["plain"], mib)), times)


# Against dcp.load

def load_whole(bench):
    store, shape = bench.store / "rows", bench.load_shape()
    times = {"dcp.load": [], "numpy": [], "plain": []}
    with Loader("numpy") as numpy, Loader("dcp", bench.store / "small") as dcp:
        for _ in range(bench.repeats):
            times["dcp.load"].append(dcp.load(store, "w", *shape))
            times["plain"].append(sum(map(numpy.load, data_files(store))))
            with bench.mount(store):
                times["numpy"].append(numpy.load(bench.point / "tensors/w"))
    return Result(ratio(times["dcp.load"], times["numpy"]), "x",
                  "%.3f s against %.3f s; fromfile of the stored files %.3f s"
                  % tuple(median(times[k]) for k in
                          ("numpy", "dcp.load", "plain")), times)


def load_first(bench):
    store = bench.store / "wide"
    name = checkpoints.wide_name(checkpoints.WIDE // 3)
    times = {"dcp.load": [], "mount": []}
    with Loader("dcp", bench.store / "small") as dcp:
        for _ in range(bench.repeats):
            times["dcp.load"].append(dcp.load(store, name, 64))
            mount = bench.mount(store)
            start = time.perf_counter()
            mount.start()
            data = (bench.point / "tensors" / name).read_bytes()
            mount.unmount()
            times["mount"].append(time.perf_counter() - start)
            mount.wait()
            if len(data) != 256:
                raise Failed("%s has %d bytes" % (name, len(data)))
    return Result(ratio(times["dcp.load"], times["mount"]), "x",
                  "%.3f s against %.3f s" % (median(times["mount"]),
                                             median(times["dcp.load"])),
                  times)


# Metadata

def parse_time(bench):
    found = bench.parses()
    return Result(median(found["seconds"]), "s",
                  "mount to first name found; of a small checkpoint %.3f s"
                  % median(found["small"]), found)


def parse_memory(bench):
    found = bench.parses()
    return Result(median(found["rss"]) / 1024, "MiB",
                  "anonymous: %.0f MiB" % (median(found["anonymous"]) / 1024),
                  found)


def list_folder(bench, option):
    plain = bench.store / "plain"
    if not plain.exists():
        os.makedirs(str(plain) + ".tmp", exist_ok=True)
        for index in range(checkpoints.WIDE):
            path = str(plain) + ".tmp/" + checkpoints.wide_name(index)
            with open(path, "wb") as file:
                file.truncate(256)
        os.rename(str(plain) + ".tmp", plain)
    tensors = "%s/tensors/" % bench.point
    first = checkpoints.wide_name(0)
    times = {"plain": [], "mount": [], "again": []}
    for _ in range(bench.repeats):
        times["plain"].append(seconds_of("ls", option, plain))
        with bench.mount(bench.store / "wide"):
            os.stat(tensors + first)
            times["mount"].append(seconds_of("ls", option, tensors))
            times["again"].append(seconds_of("ls", option, tensors))
    return Result(ratio(times["mount"], times["plain"]), "x",
                  "%.3f s, again %.3f s; tmpfs %.3f s"
                  % tuple(median(times[k]) for k in
                          ("mount", "again", "plain")), times)


def open_read_close(bench):
    count = 20000
    plain = bench.store / "plain-4k"
    plain.write_bytes(bytes(4096))
    times = {"plain": [], "mount": []}
    with bench.mount(bench.store / "small"):
        tensor = bench.point / "tensors" / "w"
        run(bench.helper, "open", tensor, 1000)
        for _ in range(bench.repeats):
            for key, path in (("plain", plain), ("mount", tensor)):
                done = run(bench.helper, "open", path, count)
                times[key].append(float(done.stdout) / 1000)
    return Result(median(times["mount"]), "us",
                  "from %.1f to %.1f us; tmpfs %.2f us"
                  % (min(times["mount"]), max(times["mount"]),
                     median(times["plain"])), times)


def idle(bench):
    with bench.mount(bench.store / "rows") as mount:
        dd(bench.point / "tensors" / "w")
        time.sleep(2)
        before = mount.switches()
        time.sleep(IDLE_SECONDS)
        count = mount.switches() - before
    return Result(count / IDLE_SECONDS, "/s",
                  "%d in %d s" % (count, IDLE_SECONDS), {"count": [count]})


ROWS = (
    Row("rows", "cold read, 4 axis-0 shards, over plain dd", 0.65, "", True,
        ("rows",), lambda b: read_row(b, "rows", "first", "dropped")),
    Row("columns", "cold read, 4 column shards of 8 KiB runs", 0.6, "", True,
        ("columns",), lambda b: read_row(b, "columns", "first", "dropped")),
    Row("direct", "O_DIRECT bs=16M, 4 axis-0 shards", 1.0, "", True,
        ("rows",), lambda b: read_row(b, "rows", "direct", "direct again")),
    Row("warm", "warm second read", 1.0, "", True,
        ("rows",), lambda b: read_row(b, "rows", "second", None)),
    Row("disk", "store on a disk, not in its page cache", 0.9, "", True,
        ("rows",), read_disk),
    Row("numpy", "numpy.fromfile, cold, faster than dcp.load", 3, "x", True,
        ("rows", "small"), load_whole, TORCH),
    Row("first", "first of 100 000 tensors, faster than dcp.load", 20, "x",
        True, ("wide", "small"), load_first, TORCH),
    Row("parse", "parse of its .metadata, with mounting", 0.25, "s", False,
        ("wide", "small"), parse_time),
    Row("rss", "resident memory of the daemon after it", 64, "MiB", False,
        ("wide", "small"), parse_memory),
    Row("ls", "ls -U of its 100 000 tensors, over tmpfs", 2, "x", False,
        ("wide",), lambda b: list_folder(b, "-U")),
    Row("ls-l", "ls -lU of them, over tmpfs", 4, "x", False,
        ("wide",), lambda b: list_folder(b, "-lU")),
    Row("open", "open, read, close of 4 KiB, warm", 10, "us", False,
        ("small",), open_read_close),
    Row("parallel", "4 readers of 4 tensors, cold, over 4 plain dd", 0.6, "",
        True, ("quad",), read_parallel),
    Row("idle", "wake-ups a second while idle", 0, "/s", False,
        ("rows",), idle),
)
