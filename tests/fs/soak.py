"""A long time of random use over several ranks, against an oracle.

Threads read slices, stored files and views at random, clients are killed
while they read, and from time to time the whole job ends and starts again on
the same mount points.  Meanwhile what a daemon has (descriptors, memory,
threads) must stay as it is.
"""

import os
import pathlib
import random
import re
import signal
import subprocess
import threading
import time

import util
from sample import pread_all

READERS = 6
# What a daemon may have more of at the end than after its first while:
# descriptors, threads, KiB beside what each new thread has.  In a short time
# its pools still fill.
MORE = {True: (8, 4, 8 << 10), False: (12, 16, 48 << 10)}
# And in a long time, who has least more of it: what leaks does so everywhere.
LEAST_KIB = 3 << 10
LONG = 60
# The first while, of the whole: until the slices that the kernel may remember
# are as many as ever.
FIRST = 0.4
# A reply's buffer, the scratch beside it, and what malloc makes of them.
THREAD_KIB = 2560


def usage(pid):
    """(descriptors, threads, KiB of memory of its own) of a process."""
    status = pathlib.Path("/proc/%d/status" % pid).read_text()
    number = {m[1]: int(m[2]) for m in re.finditer(
        r"^(\w+):\s+(\d+)", status, re.M)}
    return (len(os.listdir("/proc/%d/fd" % pid)), number["Threads"],
            number["RssAnon"])


class Reader:
    """One thread's random reads of the mounts of a job."""

    def __init__(self, the_job, sample, files, seed):
        self.rng = random.Random(seed)
        self.seed = seed
        self.mounts = the_job.mounts
        self.sample = sample
        self.files = files
        self.names = [n for n in sample.oracle if n != "empty"]

    def folder(self, name):
        return self.rng.choice(self.mounts) / (
            "sub/turned" if name == "turned" else "step-1")

    def slice(self):
        name = self.rng.choice([n for n in self.names if n != "scalar"])
        tensor = self.sample.tensors[name]
        text, index = util.random_slice(self.rng, tensor.shape)
        want = util.tensor_bytes(tensor[index])
        path = self.folder(name) / "tensors" / ("%s[%s]" % (name, text))
        return path, path.read_bytes() == want

    def span(self):
        name = self.rng.choice(self.names)
        data = self.sample.oracle[name]
        path = self.folder(name) / "tensors" / name
        offset = self.rng.randrange(len(data))
        size = self.rng.choice((1, 4096, 70000, 1 << 20, 3 << 20))
        fd = os.open(path, os.O_RDONLY | self.rng.choice((0, os.O_DIRECT)))
        try:
            got = pread_all(fd, size, offset)
        finally:
            os.close(fd)
        return path, got == data[offset:offset + size]

    def stored(self):
        name, data = self.rng.choice(self.files)
        path = self.rng.choice(self.mounts) / name
        fd = os.open(path, os.O_RDONLY | self.rng.choice((0, os.O_DIRECT)))
        offset = self.rng.randrange(len(data))
        try:
            return path, pread_all(fd, 1 << 18, offset) == \
                data[offset:offset + (1 << 18)]
        finally:
            os.close(fd)

    def listing(self):
        folder = self.rng.choice(self.mounts) / "step-1"
        names = set(os.listdir(folder / "tensors"))
        return folder, names == set(self.sample.oracle) - {"turned"}

    def attributes(self):
        name = self.rng.choice(self.names)
        path = self.folder(name) / "npy" / (name + ".npy")
        shape = os.getxattr(path, "user.ckptfs.shape").decode()
        return path, shape == str(list(
            self.sample.tensors[name].shape)).replace(" ", "")

    def absent(self):
        path = self.rng.choice(self.mounts) / ("absent%d" %
                                               self.rng.randrange(1000))
        return path, not os.path.exists(path)

    def once(self):
        """What was wrong, or nothing."""
        call = self.rng.choices(
            (self.slice, self.span, self.stored, self.listing,
             self.attributes, self.absent), (8, 8, 3, 1, 2, 1))[0]
        try:
            path, good = call()
        except OSError as error:
            return "%s of seed %d: %s" % (call.__name__, self.seed, error)
        return "" if good else "%s of seed %d: wrong bytes of %s" % (
            call.__name__, self.seed, path)


class Killer:
    """Starts clients and kills them in the middle of what they do."""

    def __init__(self, the_job, seed):
        self.rng = random.Random(seed)
        self.mounts = the_job.mounts
        self.count = 0

    def once(self):
        mount = self.rng.choice(self.mounts)
        path = mount / "step-1/tensors" / self.rng.choice(("rows", "cols"))
        command = self.rng.choice((
            ["cat", str(path)], ["dd", "if=%s" % path, "bs=1M",
                                 "iflag=direct"],
            ["ls", "-lR", str(mount)]))
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        time.sleep(self.rng.random() * 0.03)
        client.send_signal(signal.SIGKILL)
        begin = time.monotonic()
        client.wait(util.patience(60))
        self.count += 1
        took = time.monotonic() - begin
        return "" if took < util.patience(5) else \
            "a killed client took %.1f s" % took


def worker(thing, ending, faults, counts):
    count = 0
    while not ending.is_set() and not faults:
        fault = thing.once()
        count += 1
        if fault:
            faults.append(fault)
    counts.append((type(thing).__name__, count))


def period(the_job, sample, files, rng, seconds):
    """One job's time; what is wrong, and how often what was done."""
    ending, faults, counts = threading.Event(), [], []
    things = [Reader(the_job, sample, files, rng.randrange(1 << 30))
              for _ in range(READERS)] + [Killer(the_job,
                                                 rng.randrange(1 << 30))]
    threads = [threading.Thread(target=worker, args=(
        thing, ending, faults, counts)) for thing in things]
    for thread in threads:
        thread.start()
    # Pools and caches fill in a first while.
    ending.wait(seconds * FIRST)
    first = {r: usage(the_job.pid(r)) for r in the_job.all_ranks}
    ending.wait(seconds * (1 - FIRST))
    ending.set()
    for thread in threads:
        thread.join()
    last = {r: usage(the_job.pid(r)) for r in the_job.all_ranks}
    for rank, before in first.items():
        most = list(MORE[seconds >= LONG])
        most[2] += max(0, last[rank][1] - before[1]) * THREAD_KIB
        for what, most, a, b in zip(("descriptors", "threads", "KiB"), most,
                                    before, last[rank]):
            if b > a + most:
                faults.append("rank %d: %d %s became %d" % (rank, a, what, b))
    least = min(last[r][2] - first[r][2] for r in first)
    if seconds >= LONG and least > LEAST_KIB:
        faults.append("each rank has %d KiB more, at least" % least)
    return faults, counts, first, last


def soak(start, sample, files, rng, seconds, periods):
    """start() makes a job.  Prints a line for each period."""
    for number in range(periods):
        the_job = start()
        faults, counts, first, last = period(the_job, sample, files, rng,
                                             seconds / periods)
        print("period %d: %d reads, %d clients killed" % (
            number, sum(c for n, c in counts if n == "Reader"),
            sum(c for n, c in counts if n == "Killer")))
        for rank in first:
            print("  rank %d: descriptors, threads, KiB: %r, at the end %r" % (
                rank, first[rank], last[rank]))
        assert not faults, faults
        for rank in the_job.all_ranks:
            reads = the_job.status(rank)["reads"]
            assert reads["peer"]["errors"] == 0, reads
        the_job.end()
        faults = the_job.finish()
        assert not faults, "\n".join(faults)
