"""What is lost when a rank fails, at every phase, and what is not.

Every cell of the matrix is a test: a phase, a fault, and the rank that it
strikes.  A table of all of them stands at the end of the tests' output.

    kill   SIGKILL to the daemon; its watcher has to clean up
    stop   SIGSTOP to the daemon, SIGCONT some time later
    cut    the cable of the rank's host is pulled, and put back
"""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import subprocess
import time

import pytest

import union
import util
from job import is_alive, is_stopped, parent_of
from mounting import SLOW, patience, poll, send
from test_job import ROWS, check_all, w
from test_union import step_of, stores  # noqa: F401
from union import direct

RANKS = 3
DEADLINE = 2 if SLOW == 1 else 6
# What a failing read may take beyond its deadline, and at once.
SLACK, AT_ONCE = 1.0, 0.9
FAULTS = ("kill", "stop", "cut")
PHASES = ("start", "catalog", "idle", "read", "unmount", "end")
CELLS = {}


def matrix(*faults):
    """Every fault on every rank; sanitizers see the middle one only."""
    return pytest.mark.parametrize("fault, rank", [
        pytest.param(fault, rank, id="%s-%d" % (fault, rank),
                     marks=[] if rank == 1 and fault != "cut"
                     else pytest.mark.heavy)
        for fault in faults for rank in range(RANKS)])


def table(cells):
    """The lines of the table of what was tested."""
    yield "phase     fault  " + "".join("%-28s" % ("rank %d" % r)
                                        for r in range(RANKS))
    for phase in PHASES:
        for fault in FAULTS:
            row = [cells.get((phase, fault, r), "-") for r in range(RANKS)]
            if set(row) != {"-"}:
                yield "%-9s %-6s %s" % (phase, fault, "".join(
                    "%-28s" % text for text in row))


class Cell:
    """Says what came of a cell, for the table."""

    def __init__(self):
        self.words = []

    def say(self, text):
        self.words.append(text)


@contextlib.contextmanager
def cell(phase, fault, rank):
    made = Cell()
    begin = time.monotonic()
    try:
        yield made
    except BaseException:
        CELLS[phase, fault, rank] = "FAILED"
        raise
    CELLS[phase, fault, rank] = " ".join(
        ["ok", "%.1f s" % (time.monotonic() - begin), *made.words])


@pytest.fixture
def ranks(job, stores, request):
    """ranks(fault, ...) -> (job, bytes): a shard of 1 MiB on each rank."""
    def start(fault, **more):
        made = stores(RANKS)
        data = util.tensor_bytes(step_of(made, RANKS, rows=3072, width=256))
        if fault == "cut":
            more["hosts"] = request.getfixturevalue("hosts")
            request.addfinalizer(more["hosts"].mend_all)
        return job(stores.pattern, RANKS, allow_log=[r"ckptfs: error: "],
                   options="force_mpi,deadline=%d" % DEADLINE, **more), data
    return start


def strike(the_job, fault, rank):
    if fault == "kill":
        the_job.kill(rank)
    elif fault == "stop":
        the_job.stop(rank)
    else:
        the_job.hosts.cut(rank)


def heal(the_job, fault, rank):
    if fault == "stop":
        the_job.cont(rank)
    else:
        the_job.hosts.mend(rank)


def others_of(rank):
    return [r for r in range(RANKS) if r != rank]


def timed(path):
    """(0 or the errno of reading a file, how long that took)."""
    begin = time.monotonic()
    number = util.errno_of(direct, path)
    return number, time.monotonic() - begin


def at_once(function, ranks):
    """A function of each rank, all at the same time."""
    with concurrent.futures.ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(function, ranks))


def check_cut_off(the_job, data, rank, seen_from=None):
    """Reads that need the rank fail in time, and then at once; others do
    not fail.  Returns how long the first took."""
    third = len(data) // 3
    others = seen_from or others_of(rank)
    first = at_once(lambda r: timed(w(the_job, r, ROWS[rank])), others)
    for number, seconds in first:
        util.same_errno(number, "EIO")
        assert seconds < DEADLINE + patience(SLACK), first
    for other in others:
        number, seconds = timed(w(the_job, other, ROWS[rank]))
        util.same_errno(number, "EIO")
        assert seconds < patience(AT_ONCE), (other, seconds)
        for owner in others_of(rank):
            begin = time.monotonic()
            assert direct(w(the_job, other, ROWS[owner])) == \
                data[owner * third:(owner + 1) * third]
            assert time.monotonic() - begin < patience(AT_ONCE)
        # What is known of files and tensors needs nobody.
        assert w(the_job, other).stat().st_size == len(data)
        assert os.listdir(the_job.mounts[other] / "step/tensors") == ["w"]
    return max(seconds for _, seconds in first)


def check_lost(the_job, data, rank):
    """A daemon was killed: no dead mount, its watcher stays, others work."""
    the_job.wait_gone(rank)
    assert os.listdir(the_job.mounts[rank]) == []
    took = check_cut_off(the_job, data, rank)
    for other in others_of(rank):
        the_job.wait_state(rank, other, "lost")
    assert the_job.proc.poll() is None, the_job.describe()
    return took


def check_back(the_job, data, rank):
    """After a while everything is as before, by itself."""
    # A TCP connection finds out as late as it had to wait before.
    seconds = 5 if the_job.hosts is None else 20
    for other in others_of(rank):
        the_job.wait_state(rank, other, "up", seconds=seconds)
    for other in others_of(rank):
        the_job.wait_state(other, rank, "up", seconds=seconds)
    check_all(the_job, data)


def watchers_of(the_job):
    return [the_job.watcher(r) for r in range(RANKS)]


# Idle

@pytest.mark.timeout(90)
@matrix(*FAULTS)
def test_idle(ranks, fault, rank):
    """Nobody reads when it happens; then everybody does."""
    the_job, data = ranks(fault)
    check_all(the_job, data)
    watchers = watchers_of(the_job)
    with cell("idle", fault, rank) as this:
        strike(the_job, fault, rank)
        if fault == "kill":
            took = check_lost(the_job, data, rank)
            assert all(is_alive(pid) for pid in watchers)
        else:
            took = check_cut_off(the_job, data, rank)
            for other in others_of(rank):
                assert the_job.state(rank, other) == "suspect"
            if fault == "cut":
                check_cut_off_side(the_job, data, rank)
            heal(the_job, fault, rank)
            check_back(the_job, data, rank)
        this.say("EIO after %.1f s" % took)


def check_cut_off_side(the_job, data, rank):
    """The host that is alone has its own shard, and no other."""
    third = len(data) // 3
    for owner in others_of(rank):
        number, seconds = timed(w(the_job, rank, ROWS[owner]))
        util.same_errno(number, "EIO")
        assert seconds < DEADLINE + patience(SLACK)
    assert direct(w(the_job, rank, ROWS[rank])) == \
        data[rank * third:(rank + 1) * third]


@pytest.mark.timeout(90)
@pytest.mark.heavy
def test_idle_one_after_the_other(ranks):
    """All but one are lost, rank 0 first; the last still has its own."""
    the_job, data = ranks("kill")
    check_all(the_job, data)
    third = len(data) // 3
    for rank in 0, 1:
        the_job.kill(rank)
        the_job.wait_gone(rank)
        the_job.wait_state(rank, 2, "lost", seconds=15)
    assert direct(w(the_job, 2, ROWS[2])) == data[2 * third:]
    for rank in 0, 1:
        number, seconds = timed(w(the_job, 2, ROWS[rank]))
        util.same_errno(number, "EIO")
        assert seconds < patience(AT_ONCE)
    the_job.unmount(2)
    # Two were killed: whatever mpirun makes of that, it ends.
    the_job.wait()
    the_job.wait_nothing_left()


# In the middle of a read

class Readers:
    """Threads that read the same rows through O_DIRECT again and again."""

    def __init__(self, the_job, data, rank):
        self.results = {r: [] for r in others_of(rank)}
        self.longest, self.last = 0.0, time.monotonic()
        third = len(data) // 3
        self.want = data[rank * third:(rank + 1) * third]
        self.paths = {r: w(the_job, r, ROWS[rank]) for r in self.results}
        self.ending = False
        self.pool = concurrent.futures.ThreadPoolExecutor(2 * RANKS)
        self.work = [self.pool.submit(self.read, r) for r in
                     list(self.results) * 2]

    def read(self, rank):
        while not self.ending:
            begin = time.monotonic()
            try:
                result = direct(self.paths[rank], 65536) == self.want
            except OSError as error:
                result = error.errno
                time.sleep(0.01)
            self.longest = max(self.longest, time.monotonic() - begin)
            self.results[rank].append(result)
            self.last = time.monotonic()

    def idle(self):
        """For how long no read has ended."""
        return time.monotonic() - self.last

    def count(self, value):
        return min(r.count(value) for r in self.results.values())

    def wait(self, value, seconds=10):
        """Until each of them has had this result once more."""
        before = self.count(value)
        poll(lambda: self.count(value) > before, seconds,
             lambda: "results are %r" % (
                 {k: v[-5:] for k, v in self.results.items()}))

    def end(self):
        self.ending = True
        self.pool.shutdown()
        return {value for r in self.results.values() for value in r}


@pytest.mark.timeout(90)
@matrix(*FAULTS)
def test_read(ranks, fault, rank):
    """Readers are at work on the shard of the rank that is struck."""
    the_job, data = ranks(fault)
    check_all(the_job, data)
    readers = Readers(the_job, data, rank)
    try:
        with cell("read", fault, rank) as this:
            readers.wait(True)
            strike(the_job, fault, rank)
            readers.wait(5, DEADLINE + 2 * SLACK)
            if fault == "kill":
                check_lost(the_job, data, rank)
            else:
                check_cut_off(the_job, data, rank)
                heal(the_job, fault, rank)
                readers.wait(True, 20)
                check_back(the_job, data, rank)
            this.say("longest %.1f s" % readers.longest)
    finally:
        found = readers.end()
    # Right bytes, or EIO; and no read was much longer than it may be.
    assert found <= {True, 5}
    assert readers.longest < DEADLINE + patience(2 * SLACK)


# While a catalog is made

WIDE = 100_000 if SLOW == 1 else 20_000


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A checkpoint whose catalog takes a while: .metadata and a data file."""
    from wide import save_wide
    return save_wide(tmp_path_factory.mktemp("wide") / "wide", WIDE)


def spread_wide(wide, folders):
    """The metadata on rank 1, the data on rank 0, nothing on rank 2."""
    for folder, names in (folders[1], (".metadata",)), \
            (folders[0], ("__0_0.distcp",)):
        (folder / "wide").mkdir(parents=True)
        for name in names:
            os.link(wide / name, folder / "wide" / name)


def ticks(pid):
    """Processor time of a process, in hundredths of a second."""
    fields = pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(
        ")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def look_up(the_job, rank):
    """Start to ask a mount for the first tensor of the checkpoint."""
    path = the_job.mounts[rank] / "wide/tensors" / "model.0"
    return subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@pytest.mark.timeout(120)
@matrix(*FAULTS)
def test_catalog(ranks, stores, wide, fault, rank):
    """Everybody asks for a catalog, which rank 0 begins to make."""
    from wide import wide_bytes
    the_job, data = ranks(fault, start=False)
    spread_wide(wide, the_job.stores)
    the_job.start()
    check_all(the_job, data)
    asked = others_of(rank) if fault != "cut" else list(range(RANKS))
    with cell("catalog", fault, rank) as this:
        before = ticks(the_job.pid(0))
        clients = [look_up(the_job, r) for r in asked]
        poll(lambda: ticks(the_job.pid(0)) > before + 2 or
             all(c.poll() is not None for c in clients), 10,
             "rank 0 is at work", interval=0.002)
        strike(the_job, fault, rank)
        begin = time.monotonic()
        answers = [c.communicate(timeout=patience(DEADLINE + 10))
                   for c in clients]
        took = time.monotonic() - begin
        for client, (out, err) in zip(clients, answers):
            assert (client.returncode == 0) == (out == wide_bytes(0)), err
        this.say("%d of %d" % (sum(c.returncode == 0 for c in clients),
                               len(clients)))
        if rank == 2:
            # It has nothing that is needed.
            good = [c.returncode == 0 for c, r in zip(clients, asked)
                    if r != rank]
            assert all(good), answers
        assert took < 2 * DEADLINE + patience(2 * SLACK + 3)
        if fault == "kill":
            check_lost(the_job, data, rank)
        else:
            heal(the_job, fault, rank)
            check_back(the_job, data, rank)
            for other in range(RANKS):
                path = the_job.mounts[other] / ("wide/tensors/model.%d"
                                                % other)
                poll(lambda: union.read_or_errno(path) == wide_bytes(other),
                     20, "rank %d reads it" % other)


# Start

def daemons_of(the_job):
    """Rank -> process of the daemons that run already, by their parents."""
    found = {}
    processes = set(the_job.processes())
    for pid in processes:
        try:
            if os.readlink("/proc/%d/exe" % pid) != the_job.program:
                continue
            if os.readlink("/proc/%d/exe" % parent_of(pid)) != \
                    the_job.program:
                continue
            env = pathlib.Path("/proc/%d/environ" % pid).read_bytes()
        except OSError:
            continue
        for entry in env.split(b"\0"):
            if entry.startswith(b"OMPI_COMM_WORLD_RANK="):
                found[int(entry.split(b"=")[1])] = pid
    return found


@pytest.mark.timeout(120)
@matrix(*FAULTS)
def test_start(ranks, fault, rank):
    """As soon as the daemon is there, before it can have met the others."""
    the_job, data = ranks(fault, start=False)
    with cell("start", fault, rank) as this:
        the_job.launch()
        if fault == "cut":
            poll(lambda: daemons_of(the_job), 20, "a daemon is there",
                 interval=0.002)
            the_job.hosts.cut(rank)
        else:
            pid = poll(lambda: daemons_of(the_job).get(rank), 20,
                       "the daemon is there", interval=0.002)
            the_job.pids[rank] = pid
            os.kill(pid, signal.SIGKILL if fault == "kill"
                    else signal.SIGSTOP)
        if fault == "kill":
            check_killed_at_start(the_job, rank, this)
            return
        hold_start(the_job, rank)
        if fault == "stop":
            poll(lambda: is_stopped(pid), 10, "the daemon is stopped")
            the_job.cont(rank)
        else:
            the_job.hosts.mend(rank)
        the_job.wait_all_up(60)
        check_all(the_job, data)


def hold_start(the_job, rank):
    """Until the others have begun; mpirun may not be able to start them."""
    def waiting():
        states = [the_job.status(r) for r in others_of(rank)]
        assert not any(s and s["state"] == "serving" for s in states)
        return all(s and s["state"] == "starting" for s in states)

    deadline = time.monotonic() + 2 * SLOW
    while not waiting() and time.monotonic() < deadline:
        time.sleep(0.01)


def check_killed_at_start(the_job, rank, this):
    """The job cannot come up whole: it ends, or the others serve, or it
    can be ended; and whichever, nothing is left."""
    the_job.wait_gone(rank)

    def settled():
        if the_job.proc.poll() is not None:
            return "ended"
        states = [the_job.status(r) for r in others_of(rank)]
        if all(s and s["state"] == "serving" for s in states):
            return "serves"
        return None

    with contextlib.suppress(AssertionError):
        poll(settled, 3 * DEADLINE, "")
    this.say(settled() or "waits")
    if the_job.proc.poll() is None:
        the_job.end()
    the_job.wait_nothing_left()


# Unmount, and the end

@pytest.mark.timeout(90)
@matrix(*FAULTS)
def test_unmount(ranks, fault, rank):
    """The rank leaves, and is struck while it does."""
    the_job, data = ranks(fault)
    check_all(the_job, data)
    pid = the_job.pid(rank)
    with cell("unmount", fault, rank):
        if fault != "kill":
            strike(the_job, fault, rank)
        subprocess.run(["fusermount3", "-u", the_job.mounts[rank]],
                       check=True, timeout=patience(20))
        if fault == "kill":
            send(pid, signal.SIGKILL)
        elif fault == "stop":
            check_cut_off(the_job, data, rank)
            the_job.cont(rank)
        the_job.wait_gone(rank, 15)
        if fault == "cut":
            check_cut_off(the_job, data, rank)
            the_job.hosts.mend(rank)
        for other in others_of(rank):
            the_job.wait_state(rank, other, "left", "lost", seconds=20)
        check_cut_off(the_job, data, rank)
        assert the_job.proc.poll() is None


@pytest.mark.timeout(90)
@matrix("kill", "stop")
def test_end(ranks, fault, rank):
    """mpirun is told to end while one of its daemons cannot."""
    the_job, data = ranks(fault)
    check_all(the_job, data)
    with cell("end", fault, rank):
        strike(the_job, fault, rank)
        the_job.end()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("rank", range(RANKS))
def test_end_while_a_cable_is_cut(ranks, rank):
    """What mpirun cannot reach ends by itself once it can be reached."""
    the_job, data = ranks("cut")
    check_all(the_job, data)
    with cell("end", "cut", rank):
        the_job.hosts.cut(rank)
        the_job.proc.send_signal(signal.SIGTERM)
        for other in others_of(rank):
            poll(lambda: not the_job.is_mounted(other) or other != 0, 20,
                 "rank %d is unmounted" % other)
        the_job.hosts.mend(rank)
        the_job.wait(40)
        the_job.wait_nothing_left(20)


def test_again_after_all_that(ranks, job, stores):
    """A new job on the stores and mount points of one that was killed."""
    the_job, data = ranks("kill")
    check_all(the_job, data)
    for pid in the_job.processes():
        send(pid, signal.SIGKILL)
    the_job.wait()
    # Nobody was left who could have cleaned up: that is for the next one.
    for rank in range(RANKS):
        if the_job.is_mounted(rank):
            subprocess.run(["fusermount3", "-u", the_job.mounts[rank]],
                           check=True)
    the_job.wait_nothing_left()
    again = job(stores.pattern, RANKS, options="force_mpi",
                mount=the_job.mounts[0].parent / "mnt%r")
    check_all(again, data)
