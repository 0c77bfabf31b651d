"""How a job of several daemons ends, all at once or one rank after the other."""

import concurrent.futures
import os
import signal
import subprocess
import time

import pytest

import util
from job import is_alive, processes_of
from mounting import patience, poll, send
from test_job import GONE, MPI, ROWS, check_all, three, w  # noqa: F401
from test_union import stores  # noqa: F401

pytestmark = pytest.mark.heavy

# How it ends

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT],
                         ids=lambda n: n.name)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "reading"])
def test_signal_to_mpirun(three, number, busy):
    the_job, data = three(allow_log=[GONE] if busy else [])
    check_all(the_job, data)
    readers = [subprocess.Popen(
        ["sh", "-c", "while dd if='%s' bs=1M iflag=direct of=/dev/null "
         "2>/dev/null; do :; done" % w(the_job, rank)])
        for rank in range(3 if busy else 0)]
    try:
        if busy:
            wait_busy(the_job)
        the_job.end(number)
        for reader in readers:
            reader.wait(patience(20))
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def wait_busy(the_job, ranks=(0, 1, 2)):
    """Wait until each of the ranks has read some more from its peers."""
    def read():
        return [the_job.status(r)["reads"]["peer"]["bytes"] for r in ranks]
    before = read()
    poll(lambda: all(a < b for a, b in zip(before, read())), 10,
         "all ranks read")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", ["mpirun", "daemons", "killed"])
def test_end_while_pages_are_dropped(three, target):
    """The kernel is told to forget pages that readers wait for: neither it
    nor anybody else may hang on them when the daemons end."""
    the_job, data = three(allow_log=[GONE])
    check_all(the_job, data)
    script = "while :; do cat '%s' >/dev/null 2>&1 || :; done"
    readers = [subprocess.Popen(["sh", "-c", script % w(the_job, rank)])
               for rank in range(3) for _ in range(2)]
    try:
        before = [the_job.status(r)["reads"]["peer"]["bytes"]
                  for r in range(3)]

        def replaced():
            """New files, the same bytes: what was cached is dropped."""
            for rank, folder in enumerate(the_job.stores):
                for file in (folder / "step").glob("__*"):
                    copy = file.with_name(".copy")
                    copy.write_bytes(file.read_bytes())
                    os.rename(copy, file)
            os.utime(the_job.stores[2] / "step/.metadata")
            return all(the_job.status(r)["reads"]["peer"]["bytes"] >
                       b + len(data) for r, b in enumerate(before))

        # Slower than the store is looked at, or nothing could be read.
        poll(replaced, 60, "all ranks read again and again", interval=1.3)
        if target == "mpirun":
            the_job.end()
        else:
            for rank in range(3):
                the_job.kill(rank, signal.SIGKILL if target == "killed"
                             else signal.SIGTERM)
            for rank in range(3):
                the_job.wait_gone(rank)
            the_job.wait()
            the_job.wait_nothing_left()
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT,
                                    signal.SIGHUP], ids=lambda n: n.name)
def test_signal_to_every_daemon(three, number):
    """As each is told to end, mpirun ends well."""
    the_job, data = three(allow_log=[GONE])
    check_all(the_job, data)
    for rank in range(3):
        the_job.kill(rank, number)
    for rank in range(3):
        the_job.wait_gone(rank)
    assert the_job.wait() == 0
    the_job.wait_nothing_left()


def test_unmount_everywhere(three):
    the_job, data = three()
    check_all(the_job, data)
    for rank in range(3):
        the_job.unmount(rank)
    assert the_job.wait() == 0
    the_job.wait_nothing_left()


@pytest.mark.parametrize("seed", range(8))
def test_signal_during_the_start(three, seed):
    """At moments between the first process and the last mount."""
    the_job, _ = three(start=False, allow_log=[GONE])
    number = (signal.SIGTERM, signal.SIGINT)[seed % 2]
    the_job.launch()
    wait_for_start(the_job, seed)
    the_job.end(number)


def wait_for_start(the_job, step):
    """Until mpirun runs; so many processes do; a mount is there; all are."""
    def count():
        return len(the_job.processes()) + sum(
            the_job.is_mounted(r) for r in range(3))
    wanted = (1, 2, 3, 4, 5, 6, 8, 10)[step]
    poll(lambda: count() >= wanted, 20,
         lambda: "%d processes and mounts\n%s" % (wanted, the_job.describe()),
         interval=0.001)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP],
                         ids=lambda n: n.name)
def test_mpirun_is_killed(three, number):
    the_job, data = three(allow_log=[GONE])
    check_all(the_job, data)
    os.kill(the_job.proc.pid, number)
    the_job.wait()
    the_job.wait_nothing_left()


@pytest.mark.parametrize("rank", [0, 1])
def test_watcher_is_killed(three, rank):
    """Its daemon unmounts and ends; what mpirun does then is its affair."""
    the_job, data = three(allow_log=[GONE])
    check_all(the_job, data)
    pid = the_job.pid(rank)
    os.kill(the_job.watcher(rank), signal.SIGKILL)
    the_job.wait_gone(rank)
    assert not is_alive(pid)


def test_terminal_interrupt(three):
    """Ctrl-C reaches every process of the terminal at once."""
    the_job, data = three(allow_log=[GONE])
    check_all(the_job, data)
    for pid in the_job.processes():
        send(pid, signal.SIGINT)
    the_job.wait()
    the_job.wait_nothing_left()


# One rank leaves

@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("how", ["unmount", "SIGTERM"])
def test_one_rank_leaves(three, rank, how):
    """Its shards are EIO for the others, at once; all else goes on."""
    the_job, data = three(allow_log=[GONE])
    others = [r for r in range(3) if r != rank]
    check_all(the_job, data, others)
    watcher = the_job.watcher(rank)
    if how == "unmount":
        the_job.unmount(rank)
    else:
        the_job.kill(rank, signal.SIGTERM)
        the_job.wait_gone(rank)
    third = len(data) // 3
    for other in others:
        the_job.wait_state(rank, other, "left")
        begin = time.monotonic()
        util.same_errno(util.errno_of(
            w(the_job, other, "[%d:%d]" % (rank * 1024 + 1,
                                           rank * 1024 + 1024)).read_bytes),
            "EIO")
        assert time.monotonic() - begin < patience(2)
        for owner in others:
            assert w(the_job, other, ROWS[owner]).read_bytes() == \
                data[owner * third:(owner + 1) * third]
    poll(lambda: not is_alive(watcher), 5, "its watcher ends")
    assert the_job.proc.poll() is None
    for other in others:
        the_job.unmount(other)
    assert the_job.wait() == 0


def test_one_rank_leaves_while_others_read(three):
    the_job, data = three(allow_log=[GONE])
    third = len(data) // 3
    stop, results = [], []

    def read(rank):
        while not stop:
            fd = os.open(w(the_job, rank, ROWS[2 - rank]),
                         os.O_RDONLY | os.O_DIRECT)
            try:
                got = b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
                results.append(got == data[(2 - rank) * third:
                                           (3 - rank) * third])
            except OSError as error:
                results.append(error.errno)
            finally:
                os.close(fd)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, rank) for rank in (0, 2, 0, 2)]
        try:
            poll(lambda: len(results) > 20, 20, "they read")
            the_job.unmount(1)
            before = len(results)
            poll(lambda: len(results) > before + 20, 20, "they read on")
        finally:
            stop.append(True)
        for reader in readers:
            reader.result()
    assert set(results) == {True}


def test_unmount_while_files_are_open(three):
    """Refused, as for every file system; lazily, the rank has left."""
    the_job, data = three(allow_log=[GONE])
    pid = the_job.pid(1)
    with open(w(the_job, 1), "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 0) == data[:10]
        done = subprocess.run(["fusermount3", "-u", the_job.mounts[1]],
                              capture_output=True, text=True)
        assert done.returncode != 0 and "busy" in done.stderr
        check_all(the_job, data)
        subprocess.run(["fusermount3", "-uz", the_job.mounts[1]], check=True)
        assert not the_job.is_mounted(1)
        assert file.readall() == data
        assert is_alive(pid)
    the_job.wait_gone(1)
    the_job.wait_state(1, 0, "left")


def test_two_jobs_at_once(three, job, stores, tmp_path):
    """They know nothing of each other."""
    first, data = three()
    second = job(stores.pattern, 3, options=MPI)
    check_all(first, data)
    check_all(second, data)
    first.end()
    check_all(second, data)
    assert processes_of(first.name, first.program) == []


def test_a_client_that_is_killed(three):
    """It is gone at once, although what it reads does not come."""
    the_job, data = three(options=MPI + ",deadline=30", allow_log=[GONE])
    check_all(the_job, data)
    the_job.stop(2)
    reader = subprocess.Popen(["cat", str(w(the_job, 0, "[3000:3001]"))],
                              stdout=subprocess.DEVNULL)
    try:
        poll(lambda: the_job.status(0)["slots"]["used"], 10, "it waits")
        assert reader.poll() is None
    finally:
        reader.kill()
        begin = time.monotonic()
        reader.wait(patience(10))
    assert time.monotonic() - begin < patience(2)
    the_job.cont(2)
    the_job.wait_state(2, 0, "up", seconds=20)
    check_all(the_job, data)
