"""Job: several ckptfs daemons that mpirun starts, and their mounts."""

import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

from mounting import BAD_LINE, LIVE, SANITIZER, is_mounted, patience, poll, \
    send

SERIAL = itertools.count()
HERE = pathlib.Path(__file__).resolve().parent

# What Open MPI is asked for, where a test wants a certain transport.
TRANSPORTS = {
    "vader": {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "vader,self"},
    "tcp": {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "tcp,self",
            "OMPI_MCA_btl_tcp_if_include": "lo"},
}


def environment(tag="", transport=None):
    """The environment of mpirun, which hands it on to the daemons."""
    made = {k: v for k, v in os.environ.items() if not k.startswith("OMPI_")}
    made.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                CKPTFS_TEST_JOB=tag)
    made.update(TRANSPORTS[transport] if transport else {})
    if SANITIZER:
        # A sanitizer and Open MPI both want to be asked for memory first.
        made["OMPI_MCA_memory"] = "^patcher"
        made["OMPI_MCA_mtl"] = "^psm,psm2,ofi"
        # Some of its modules are gone when leaks are looked for: only who
        # called them can be named, and its frames have no pointers.
        made["ASAN_OPTIONS"] = made.get("ASAN_OPTIONS", "") + \
            ":fast_unwind_on_malloc=0"
        made["LSAN_OPTIONS"] = "suppressions=%s:print_suppressions=0" % (
            HERE / "mpi-leaks.supp")
        made["TSAN_OPTIONS"] = made.get("TSAN_OPTIONS", "") + \
            ":suppressions=%s" % (HERE / "mpi-races.supp")
    return made


# Processes

def process_state(pid):
    """The letter of /proc/PID/stat; "" if there is no such process."""
    try:
        stat = pathlib.Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return ""
    return stat.rsplit(")", 1)[1].split()[0]


def is_alive(pid):
    return process_state(pid) not in ("", "Z", "X")


def is_stopped(pid):
    return process_state(pid) in ("T", "t")


def parent_of(pid):
    stat = pathlib.Path("/proc", str(pid), "stat").read_text()
    return int(stat.rsplit(")", 1)[1].split()[1])


def command_of(pid):
    try:
        line = pathlib.Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return ""
    return line.replace(b"\0", b" ").decode(errors="replace").strip()


def shared_segments(pid):
    """The files in shared memory that a process has mapped."""
    try:
        maps = pathlib.Path("/proc", str(pid), "maps").read_text()
    except OSError:
        return set()
    return set(re.findall(r" (/dev/shm/vader_segment\S+)$", maps, re.M))


def processes_of(tag, program):
    """Live processes whose environment has the tag, or that run `program`.

    A program may write over its environment; its own file it cannot change.
    """
    found = []
    mark = b"CKPTFS_TEST_JOB=" + os.fsencode(tag) + b"\0"
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            folder = pathlib.Path("/proc", entry)
            mine = os.readlink(folder / "exe") == program or \
                mark in (folder / "environ").read_bytes()
        except OSError:
            continue
        if mine and is_alive(int(entry)):
            found.append(int(entry))
    return found


def place(file, target):
    """The same file under another name, or a copy of it."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copy(file, target)
    return target


class Job:
    """mpirun, the watchers, the daemons, and one mount for each rank.

    `store` and `mount` are patterns with %r.  `hosts` is None or a Hosts of
    hosts.py: then each rank runs on a host of its own.  `contexts` is a list
    of (ranks, options) for ranks that do not all have the same options, and
    `programs` of their binaries.  A line at error level must match one of
    `expect_log`, each of which must be seen, or of `allow_log`.
    """

    def __init__(self, binary, store, mount, folder, ranks, *, options="",
                 mpi=(), expect_log=(), allow_log=(), transport=None, hosts=None,
                 contexts=None, programs=None, args=()):
        self.name = "job%d-%d" % (os.getpid(), next(SERIAL))
        self.folder = pathlib.Path(folder) / self.name
        self.folder.mkdir()
        # A file of its own, by which its processes are known.
        self.program = os.path.realpath(self.folder) + "/ckptfs"
        self.copies = [place(binary, self.program)] + [
            place(module, self.folder / module.name)
            for module in pathlib.Path(binary).parent.glob("ckptfs*.so")]
        self.ranks = ranks
        self.hosts = hosts
        self.stores = [self.at(store, r) for r in range(ranks)]
        self.mounts = [self.at(mount, r) for r in range(ranks)]
        for point in self.mounts:
            point.mkdir(parents=True, exist_ok=True)
        self.log_file = self.folder / "log"
        self.expect_log = [expect_log] if isinstance(expect_log, str) \
            else list(expect_log)
        self.allow_log = [allow_log] if isinstance(allow_log, str) \
            else list(allow_log)
        self.env = environment(self.name, transport)
        # Open MPI's sockets lie here, and their paths may not be long.
        self.scratch = pathlib.Path("/tmp/ckptfs-" + self.name)
        self.env["TMPDIR"] = str(self.scratch)
        self.segments = set()
        self.connections = {}
        self.proc = None
        self.exit_code = None
        self.abandoned = False
        # What the daemons' own words say, for the time when they are dead.
        self.pids = {}
        self.command = self.make_command(str(store), str(mount), options, mpi,
                                         contexts, programs, args)

    @staticmethod
    def at(pattern, rank):
        return pathlib.Path(str(pattern).replace("%r", str(rank)))

    def make_command(self, store, mount, options, mpi, contexts, programs,
                     args):
        command = list(self.hosts.enter(0)) if self.hosts else []
        command += ["mpirun"]
        command += self.hosts.mpirun_options(self.ranks) if self.hosts \
            else ["--oversubscribe"]
        command += mpi
        contexts = contexts or [(self.ranks, options)]
        for index, (count, text) in enumerate(contexts):
            program = programs[index] if programs else self.program
            command += [":"] if index else []
            command += ["-n", str(count), str(program), store, mount]
            command += ["-o", text] if text else []
            command += args
        return command

    # Starting

    def launch(self):
        """Start mpirun, and wait for nothing."""
        LIVE.add(self)
        self.scratch.mkdir()
        with open(self.log_file, "ab") as log:
            self.proc = subprocess.Popen(
                self.command, stderr=log, stdout=log, env=self.env,
                stdin=subprocess.DEVNULL, start_new_session=True)
        return self

    def start(self, seconds=30):
        self.launch()
        self.wait_all_up(seconds)
        return self

    def wait_all_up(self, seconds=30, ranks=None):
        for rank in self.all_ranks if ranks is None else ranks:
            poll(lambda: self.is_up(rank), seconds,
                 lambda: "rank %d is up\n%s" % (rank, self.describe()))

    @property
    def all_ranks(self):
        return range(self.ranks)

    def is_up(self, rank):
        self.check_running()
        status = self.status(rank)
        if status is None or status["state"] != "serving":
            return False
        self.pids[rank] = status["pid"]
        self.segments |= shared_segments(status["pid"])
        self.connections[rank] = os.minor(os.stat(self.mounts[rank]).st_dev)
        return len(status["ranks"]) == self.ranks and all(
            r["state"] in ("self", "up") for r in status["ranks"])

    def check_running(self):
        if self.proc.poll() is not None:
            self.exit_code = self.proc.returncode
            raise AssertionError("mpirun ended with %s:\n%s" % (
                self.exit_code, self.log()))

    # Looking

    def log(self):
        found = []
        for file in sorted(self.folder.glob("log*")):
            found.append(file.read_text(errors="replace"))
        return "".join(found)

    def wait_log(self, regex, seconds=10):
        return poll(lambda: re.search(regex, self.log(), re.M), seconds,
                    lambda: "%r in the log:\n%s" % (regex, self.log()))

    def status(self, rank):
        """status.json of a mount as it is now; None if there is none."""
        try:
            text = (self.mounts[rank] / ".ckptfs/status.json").read_text()
        except OSError:
            return None
        return json.loads(text)

    def state(self, of, seen_by):
        """What one rank thinks of another: up, suspect, lost, left; None if
        that rank itself is gone."""
        status = self.status(seen_by)
        if status is None:
            return None
        found = {r["rank"]: r["state"] for r in status["ranks"]}
        return found.get(of)

    def wait_state(self, of, seen_by, *states, seconds=10):
        poll(lambda: self.state(of, seen_by) in states, seconds,
             lambda: "rank %d is %s for rank %d\n%s" % (
                 of, " or ".join(states), seen_by, self.describe()))

    def metrics(self, rank):
        """metrics of a mount: "name{labels}" -> number."""
        text = (self.mounts[rank] / ".ckptfs/metrics").read_text()
        found = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                assert name not in found, name
                found[name] = float(value)
        return found

    def describe(self):
        lines = ["the job's processes:"]
        for pid in self.processes():
            lines.append("%d %s %s" % (pid, process_state(pid),
                                       command_of(pid)[:200]))
        return "\n".join(lines + ["its log:", self.log()])

    # Processes

    def pid(self, rank):
        """The process of a daemon; remembered, since it may be dead."""
        if rank not in self.pids:
            self.pids[rank] = poll(lambda: self.status(rank), 10,
                                   "status.json of rank %d" % rank)["pid"]
        return self.pids[rank]

    def watcher(self, rank):
        """The process that mpirun started for a rank; its daemon lives."""
        return parent_of(self.pid(rank))

    def processes(self):
        return processes_of(self.name, self.program)

    def kill(self, rank, number=signal.SIGKILL):
        send(self.pid(rank), number)

    def stop(self, rank):
        """SIGSTOP, and it does stop."""
        pid = self.pid(rank)
        os.kill(pid, signal.SIGSTOP)
        poll(lambda: is_stopped(pid), 5, "process %d stops" % pid)

    def cont(self, rank):
        os.kill(self.pid(rank), signal.SIGCONT)

    def is_mounted(self, rank):
        return is_mounted(self.mounts[rank])

    def wait_gone(self, rank, seconds=10):
        """Wait until a rank's mount and daemon are gone."""
        poll(lambda: not self.is_mounted(rank), seconds,
             lambda: "rank %d is unmounted\n%s" % (rank, self.describe()))
        poll(lambda: not is_alive(self.pid(rank)), seconds,
             lambda: "the daemon of rank %d ends\n%s" % (
                 rank, self.describe()))

    def unmount(self, rank):
        self.pid(rank)
        subprocess.run(["fusermount3", "-u", str(self.mounts[rank])],
                       check=True, timeout=patience(20))
        self.wait_gone(rank)

    # Ending

    def wait(self, seconds=20):
        """Wait for the end of mpirun, and return its exit status."""
        poll(lambda: self.proc.poll() is not None, seconds,
             lambda: "mpirun ends\n" + self.describe())
        self.exit_code = self.proc.returncode
        return self.exit_code

    def wait_nothing_left(self, seconds=10):
        poll(lambda: not self.processes(), seconds,
             lambda: "every process of the job is gone\n" + self.describe())
        left = [str(m) for m in self.mounts if is_mounted(m)]
        assert not left, "mounts that stay: %s\n%s" % (left, self.log())

    def end(self, number=signal.SIGTERM):
        """End it as a user does; nothing of it may stay."""
        send(self.proc.pid, number)
        code = self.wait()
        self.wait_nothing_left()
        return code

    def end_well(self):
        """Unmount every mount, after which mpirun has nothing left to do."""
        for pid in self.processes():
            if is_stopped(pid):
                send(pid, signal.SIGCONT)
        codes = [subprocess.run(["fusermount3", "-u", str(point)],
                                capture_output=True).returncode
                 for point in self.mounts if is_mounted(point)]
        if self.proc.poll() is None and (any(codes) or not codes):
            self.end()
        elif self.proc.poll() is None:
            code = self.wait()
            assert code == 0 or len(codes) < self.ranks, \
                "mpirun ended with %d" % code
        self.wait_nothing_left()

    def abandon(self):
        """Kill everything, whatever its state."""
        self.abandoned = True
        deadline = time.monotonic() + 20
        while True:
            left = self.processes()
            if self.proc is not None and self.proc.poll() is None:
                left.append(self.proc.pid)
            for pid in left:
                send(pid, signal.SIGKILL)
            if left:
                self.abort_connections()
            for point in self.mounts:
                if is_mounted(point):
                    subprocess.run(["fusermount3", "-uz", str(point)],
                                   stderr=subprocess.DEVNULL, timeout=20)
            if not left or time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def finish(self):
        """End it whatever happened; return what is wrong, as strings."""
        faults = []
        if self.proc is not None:
            try:
                self.end_well()
            except AssertionError as error:
                faults.append(str(error))
            if faults or self.processes():
                self.abandon()
            self.proc.wait(20)
        LIVE.discard(self)
        self.remove_files()
        faults += self.check_log()
        if faults:
            faults.append("log of the job:\n" + self.log())
        return faults

    def abort_connections(self):
        """Free who waits in the kernel for an answer, also where the mount
        is detached already; needs root."""
        control = self.scratch / "control"
        control.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "fusectl", "none", str(control)],
                       stderr=subprocess.DEVNULL)
        for number in self.connections.values():
            with contextlib.suppress(OSError):
                (control / str(number) / "abort").write_text("1")
        subprocess.run(["umount", str(control)], stderr=subprocess.DEVNULL)

    def remove_files(self):
        """What Open MPI leaves when it is killed, and our own."""
        for file in self.segments:
            with contextlib.suppress(OSError):
                os.unlink(file)
        shutil.rmtree(self.scratch, ignore_errors=True)
        for file in self.copies:
            with contextlib.suppress(OSError):
                os.unlink(file)

    def check_log(self):
        faults = []
        lines = self.log().splitlines()
        for line in lines:
            if BAD_LINE.search(line) and \
                    not any(re.search(e, line)
                            for e in self.expect_log + self.allow_log):
                faults.append("unexpected in the log: " + line)
        for regex in self.expect_log:
            if not any(re.search(regex, line) for line in lines):
                faults.append("expected in the log, but not there: " + regex)
        return faults
