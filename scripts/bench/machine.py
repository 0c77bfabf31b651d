"""Mounts, reads and clocks for the rows of the benchmark."""

import os
import pathlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass

ENVIRONMENT = dict(os.environ, LC_ALL="C")


class Failed(Exception):
    """A row that could not be measured."""


def run(*command):
    done = subprocess.run([str(c) for c in command], env=ENVIRONMENT,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    if done.returncode != 0:
        raise Failed("%s: %s" % (" ".join(map(str, command)),
                                 done.stderr.strip() or done.returncode))
    return done


def seconds_of(*command):
    """Wall time of a command whose output nobody wants."""
    start = time.perf_counter()
    done = subprocess.run([str(c) for c in command], env=ENVIRONMENT,
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise Failed("%s ended with %d" % (" ".join(map(str, command)),
                                           done.returncode))
    return seconds


@dataclass
class Usage:
    """What a process took, from its start to its end."""
    seconds: float
    kib: int                # of memory, at most
    output: str


def usage_of(helper, *command):
    output, _, last = run(helper, "run", *command).stdout.rstrip() \
        .rpartition("\n")
    seconds, kib = last.split()
    return Usage(float(seconds), int(kib), output)


# dd, timed by itself: its start is not part of the reading

def dd_command(path, *extra):
    return ["dd", "if=%s" % path, "of=/dev/null", *(extra or ("bs=1M",))]


def dd_seconds(stderr, path):
    found = re.search(r"^(\d+) bytes.* copied, ([0-9.e+-]+) s", stderr, re.M)
    if not found or int(found[1]) != os.stat(path).st_size:
        raise Failed("dd of %s: %s" % (path, stderr.strip()))
    return float(found[2])


def dd(path, *extra):
    """Seconds that dd took for the file."""
    return dd_seconds(run(*dd_command(path, *extra)).stderr, path)


def dd_all(paths, *extra):
    """Seconds for the files one after the other."""
    return sum(dd(path, *extra) for path in paths)


def dd_parallel(paths):
    """Wall time of one dd for each file, all at once."""
    start = time.perf_counter()
    running = [subprocess.Popen(dd_command(p), env=ENVIRONMENT,
                                stdin=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)
               for p in paths]
    outputs = [process.communicate()[1] for process in running]
    seconds = time.perf_counter() - start
    for path, stderr in zip(paths, outputs):
        dd_seconds(stderr, path)
    return seconds


# The daemon

class Mount:
    """with Mount(...) as mount: mount.path, mount.pid"""

    def __init__(self, program, source, point):
        self.program, self.source = program, source
        self.path = pathlib.Path(point)
        self.pid = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *unused):
        if kind is None:
            self.stop()
        else:
            # What went wrong before is the thing to tell.
            subprocess.run(["fusermount3", "-uz", str(self.path)],
                           stderr=subprocess.DEVNULL)

    def start(self):
        run(self.program, self.source, self.path)

    def processes(self):
        """Process ids of live daemons for this mount point."""
        wanted, found = os.fsencode(self.path), []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in words and os.path.basename(words[0]) == b"ckptfs":
                found.append(int(entry.name))
        return found

    def find(self):
        """The process id of the daemon."""
        if self.pid is None:
            found = self.processes()
            if len(found) != 1:
                raise Failed("%d daemons for %s" % (len(found), self.path))
            self.pid = found[0]
        return self.pid

    def unmount(self):
        run("fusermount3", "-u", self.path)

    def wait(self):
        """Until the daemon is gone, so that it disturbs nothing after it.

        A process that is ending has no command line any more.
        """
        deadline = time.monotonic() + 30
        while self.processes():
            if time.monotonic() > deadline:
                raise Failed("the daemon does not end")
            time.sleep(0.005)
        self.pid = None

    def stop(self):
        self.unmount()
        self.wait()

    def status(self, field):
        """A number of /proc/PID/status."""
        return status_field(pathlib.Path("/proc", str(self.find()), "status"),
                            field)

    def switches(self):
        """Context switches of all threads since they started."""
        total = 0
        tasks = pathlib.Path("/proc", str(self.find()), "task")
        for task in tasks.iterdir():
            for field in ("voluntary_ctxt_switches",
                          "nonvoluntary_ctxt_switches"):
                total += status_field(task / "status", field)
        return total


def status_field(path, field):
    found = re.search(r"^%s:\s*(\d+)" % field, path.read_text(), re.M)
    if not found:
        raise Failed("%s has no %s" % (path, field))
    return int(found[1])


# The loaders

class Loader:
    """A process that loads tensors; see loader.py."""

    def __init__(self, *arguments):
        script = pathlib.Path(__file__).with_name("loader.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=ENVIRONMENT)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed("the loader ended with %d" % self.process.wait())
        return line

    def load(self, *words):
        """Seconds that loading took."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return float(self.answer())

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
