"""Mounts, reads and clocks for the rows of the benchmark."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
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
        return switches_of(self.find())


def switches_of(pid):
    """Context switches of all threads since they started."""
    total = 0
    for task in pathlib.Path("/proc", str(pid), "task").iterdir():
        for field in ("voluntary_ctxt_switches",
                      "nonvoluntary_ctxt_switches"):
            total += status_field(task / "status", field)
    return total


def run_seconds_of(pid):
    """Processor time of all threads since they started."""
    total = 0
    for task in pathlib.Path("/proc", str(pid), "task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def status_field(path, field):
    found = re.search(r"^%s:\s*(\d+)" % field, path.read_text(), re.M)
    if not found:
        raise Failed("%s has no %s" % (path, field))
    return int(found[1])


# Several daemons

# What Open MPI moves messages with; another host is never reached by vader.
TRANSPORTS = {"vader": ("--mca", "pml", "ob1", "--mca", "btl", "vader,self"),
              "tcp": ("--mca", "pml", "ob1", "--mca", "btl", "tcp,self")}


def mpirun_command(count, transport, hosts=None):
    """mpirun of so many ranks on this machine, or on hosts of hosts.py."""
    if hosts:
        return [*hosts.enter(0), "mpirun", *hosts.mpirun_options(count),
                "--bind-to", "none", "-n", str(count)]
    return ["mpirun", "--oversubscribe", "--bind-to", "none",
            *TRANSPORTS[transport], "-n", str(count)]


def mpi_environment():
    return dict(ENVIRONMENT, OMPI_ALLOW_RUN_AS_ROOT="1",
                OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def run_mpi(command, *words):
    """What a program under mpirun says."""
    done = subprocess.run([*command, *map(str, words)], env=mpi_environment(),
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=120)
    if done.returncode != 0:
        raise Failed("%s: %s" % (words[0], done.stderr.strip()[-300:]))
    return done.stdout


class Ranks:
    """with Ranks(...) as ranks: ranks.points, ranks.pids, of each rank

    They talk with each other also where they could open each other's stores.
    """

    def __init__(self, program, mpirun, folder, count, options="force_mpi"):
        self.folder, self.count = pathlib.Path(folder), count
        self.command = [*mpirun, str(program), "%s/store%%r" % folder,
                        "%s/mnt%%r" % folder, "-o", options]
        self.points = [self.folder / ("mnt%d" % r) for r in range(count)]
        self.process, self.pids = None, []

    def __enter__(self):
        for point in self.points:
            point.mkdir(exist_ok=True)
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            self.command, env=mpi_environment(), stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log)
        try:
            self.wait()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *unused):
        self.end()

    def fail(self, what):
        self.log.seek(0)
        raise Failed("%s: %s" % (what, self.log.read().strip()[-300:]))

    def status(self, rank):
        """status.json of a mount; None: it is not there."""
        try:
            text = (self.points[rank] / ".ckptfs/status.json").read_text()
        except OSError:
            return None
        return json.loads(text)

    def is_up(self, rank):
        status = self.status(rank)
        return status is not None and status["state"] == "serving" and all(
            r["state"] in ("self", "up") for r in status["ranks"])

    def wait(self):
        """Until all serve; then half a second, in which they settle."""
        deadline = time.monotonic() + 30
        while not all(map(self.is_up, range(self.count))):
            if self.process.poll() is not None:
                self.fail("mpirun ended with %d" % self.process.returncode)
            if time.monotonic() > deadline:
                self.fail("not all ranks serve")
            time.sleep(0.01)
        self.pids = [self.status(r)["pid"] for r in range(self.count)]
        time.sleep(0.5)

    def mounted(self):
        """The points that still are; some may be dead, and tell nothing."""
        table = pathlib.Path("/proc/self/mountinfo").read_text()
        return [p for p in self.points if " %s " % p in table]

    def end(self):
        """mpirun may be gone before the last mount is."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            for pid in [*self.pids, self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
        deadline = time.monotonic() + 5
        while self.mounted() and time.monotonic() < deadline:
            time.sleep(0.01)
        for point in self.mounted():
            subprocess.run(["fusermount3", "-uz", str(point)],
                           stderr=subprocess.DEVNULL)
        self.log.close()


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
