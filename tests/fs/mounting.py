"""Mount: one ckptfs daemon and its mount point."""

import contextlib
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import time

SANITIZER = os.environ.get("CKPTFS_SANITIZER", "")
# How many times slower what is tested is.
SLOW = {"address": 4, "thread": 8}.get(SANITIZER, 1)


def busy():
    """How many want each core, at least 1: what takes a second alone takes
    about as many here."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def patience(seconds):
    """How long something may take that takes `seconds` at most where nothing
    else runs, and without a sanitizer."""
    return seconds * SLOW * busy()


# Every mount of this process that may still be there.
LIVE = set()

# No test expects one of these by accident.
BAD_LINE = re.compile(
    r"ckptfs: error:|ERROR: AddressSanitizer|ERROR: LeakSanitizer"
    r"|LeakSanitizer:|runtime error:|WARNING: ThreadSanitizer"
    r"|ERROR: ThreadSanitizer|UndefinedBehaviorSanitizer")

PR_SET_CHILD_SUBREAPER = 36


def send(pid, number):
    """A signal to a process that may end by itself just now."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def adopt_orphans():
    """A daemon that went to the background becomes our child."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def poll(condition, seconds, what, interval=0.01):
    """Wait until condition() is true, and return what it gave.

    `what` is a text, or makes one when it is needed.
    """
    begin = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        took = time.monotonic() - begin
        if took > patience(seconds):
            raise AssertionError("not within %g s: %s" % (
                took, what() if callable(what) else what))
        time.sleep(interval)


def mount_table():
    """Mount point -> (file system type, source, options, super options)."""
    table = {}
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ", 1)
        fields = left.split()
        kind, source, options = right.split(" ", 2)
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
        table[point] = (kind, source, fields[5], options)
    return table


def is_mounted(point):
    return os.path.realpath(os.path.dirname(point)) + "/" + \
        os.path.basename(point) in mount_table()


def remove_mounts_below(folder):
    """Detach every mount below a folder; returns the mount points."""
    folder = os.path.realpath(folder) + "/"
    found = [point for point in mount_table() if point.startswith(folder)]
    for point in reversed(found):
        subprocess.run(["fusermount3", "-uz", point])
    return found


def processes_with(point):
    """Live processes (zombies are dead) called ckptfs that name `point`."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            args = pathlib.Path("/proc", entry, "cmdline").read_bytes()
            stat = pathlib.Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        if stat.rsplit(")", 1)[1].split()[0] in "ZX":
            continue
        args = args.split(b"\0")
        if b"ckptfs" in os.path.basename(args[0]) and \
                os.fsencode(point) in args:
            found.append(int(entry))
    return found


class Mount:
    def __init__(self, binary, source, point, folder, *, options="",
                 expect_log=(), foreground=True, args=()):
        self.path = pathlib.Path(point)
        self.log_file = pathlib.Path(folder) / (self.path.name + ".log")
        self.expect_log = [expect_log] if isinstance(expect_log, str) \
            else list(expect_log)
        self.foreground = foreground
        self.proc = None
        self.pid = None
        self.exit_code = None
        self.expect_exit = 0
        self.abandoned = False
        self.cwd = None
        # How the command line spells the mount point.
        self.spelled = str(point)
        self.command = [binary, str(source), self.spelled]
        if foreground:
            self.command.append("-f")
        else:
            options = ",".join(filter(None, [options,
                                             "log=%s" % self.log_file]))
        if options:
            self.command += ["-o", options]
        self.command += args

    # Starting

    def start(self):
        LIVE.add(self)
        if self.foreground:
            self._start_foreground()
        else:
            self._start_background()

    def _start_foreground(self):
        with open(self.log_file, "ab") as log:
            self.proc = subprocess.Popen(self.command, stderr=log,
                                         stdout=log,
                                         stdin=subprocess.DEVNULL,
                                         cwd=self.cwd)
        self.pid = self.proc.pid
        poll(self._answers, 20, "%s mounted" % self.path)

    def _answers(self):
        if self.proc.poll() is not None:
            self.exit_code = self.proc.returncode
            raise AssertionError("ckptfs ended with %s:\n%s"
                                 % (self.exit_code, self.log()))
        return is_mounted(self.path) and os.path.ismount(self.path)

    def _start_background(self):
        adopt_orphans()
        done = subprocess.run(self.command, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, cwd=self.cwd,
                              timeout=patience(20))
        self.stderr = done.stderr
        assert done.returncode == 0, (done.returncode, done.stderr)
        pids = processes_with(self.spelled)
        assert len(pids) == 1, pids
        self.pid = pids[0]
        # The exit status promised that the mount answers: no waiting here.
        assert os.path.ismount(self.path)

    # Looking

    def log(self):
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait_log(self, regex, seconds=10):
        return poll(lambda: re.search(regex, self.log(), re.M), seconds,
                    "%r in the log" % regex)

    # Ending

    def _reap(self):
        if self.exit_code is not None:
            return True
        if self.foreground:
            self.exit_code = self.proc.poll()
            return self.exit_code is not None
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            # Someone else's child: all we can see is that it is gone.
            if self.pid in processes_with(self.spelled):
                return False
            pid, status = self.pid, 0
        if pid:
            self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code is not None

    def wait(self, seconds=15):
        """Wait for the end of the process, and return its exit status."""
        poll(self._reap, seconds, "ckptfs ends\n" + self.log())
        return self.exit_code

    def unmount(self, lazy=False):
        """Unmount as a user does; the daemon must end with status 0."""
        subprocess.run(["fusermount3", "-uz" if lazy else "-u",
                        str(self.path)], check=True, timeout=patience(20))
        code = self.wait()
        assert code == 0, "ckptfs ended with %d:\n%s" % (code, self.log())
        assert not is_mounted(self.path)

    def abandon(self):
        """Called by the watchdog: stop the daemon, whatever its state."""
        self.abandoned = True
        if self.pid is not None and self.exit_code is None:
            send(self.pid, signal.SIGKILL)
        subprocess.run(["fusermount3", "-uz", str(self.path)],
                       stderr=subprocess.DEVNULL, timeout=20)

    def finish(self):
        """Unmount whatever happened; return what is wrong, as strings."""
        faults = []
        if self.pid is not None and self.exit_code is None \
                and is_mounted(self.path):
            faults += self._unmount_at_end()
        if self.pid is not None and self.exit_code is None:
            try:
                self.wait()
            except AssertionError as error:
                faults.append("the process stays: %s" % error)
                send(self.pid, signal.SIGKILL)
                poll(self._reap, 10, "a killed ckptfs ends")
        if self.exit_code not in (None, self.expect_exit) \
                and not self.abandoned:
            faults.append("ckptfs ended with %d" % self.exit_code)
        if is_mounted(self.path):
            faults.append("a mount stays at %s" % self.path)
            subprocess.run(["fusermount3", "-uz", str(self.path)])
        for pid in processes_with(self.spelled):
            faults.append("process %d stays" % pid)
            send(pid, signal.SIGKILL)
        LIVE.discard(self)
        faults += self._check_log()
        if faults:
            faults.append("log of ckptfs:\n" + self.log())
        return faults

    def _unmount_at_end(self):
        done = subprocess.run(["fusermount3", "-u", str(self.path)],
                              capture_output=True, text=True)
        if done.returncode == 0:
            return []
        subprocess.run(["fusermount3", "-uz", str(self.path)])
        return ["fusermount3 -u: " + done.stderr.strip()]

    def _check_log(self):
        faults = []
        lines = self.log().splitlines()
        for line in lines:
            if BAD_LINE.search(line) and \
                    not any(re.search(e, line) for e in self.expect_log):
                faults.append("unexpected in the log: " + line)
        for regex in self.expect_log:
            if not any(re.search(regex, line) for line in lines):
                faults.append("expected in the log, but not there: " + regex)
        return faults
