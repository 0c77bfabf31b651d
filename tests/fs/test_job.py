"""How a job of several daemons starts, and what it does not start with."""

import errno
import os
import pathlib
import re
import signal
import subprocess

import pytest

import util
from job import environment, is_alive, place
from mounting import is_mounted, patience, poll, send
from test_union import step_of, stores  # noqa: F401
from union import direct

# Sanitizers see the same code by way of the union and the faults.
pytestmark = pytest.mark.heavy

MPI = "force_mpi"
# Reads that need a rank which is gone are logged.
GONE = r"ckptfs: error: "


def wait_for(binary, mount, *args):
    return subprocess.run([binary, "--wait", str(mount), *args],
                          capture_output=True, text=True, timeout=patience(60))


@pytest.fixture
def three(job, stores):
    """Three ranks, a shard of 1 MiB on each; (the job, the bytes)."""
    made = stores(3)
    data = util.tensor_bytes(step_of(made, 3, rows=3072, width=256))

    def start(**more):
        more.setdefault("options", MPI)
        return job(stores.pattern, 3, **more), data
    return start


def w(the_job, rank, rows=""):
    return the_job.mounts[rank] / "step/tensors" / ("w" + rows)


ROWS = ("[0:1024]", "[1024:2048]", "[2048:]")


def check_all(the_job, data, ranks=(0, 1, 2)):
    for rank in ranks:
        assert direct(w(the_job, rank)) == data


# What differs between ranks

def refused(the_job, *words, seconds=20):
    the_job.launch()
    code = the_job.wait(seconds)
    assert code != 0
    the_job.wait_nothing_left()
    log = the_job.log()
    for word in words:
        assert re.search(word, log), log
    return log


@pytest.mark.parametrize("one, other, word", [
    (MPI, "", "force_mpi"), ("", MPI, "force_mpi"),
    ("hf_assets=/usr", "hf_assets=/etc", "/usr.*/etc|/etc.*/usr"),
    # Differing where it is too long to be shown.
    ("hf_root=" + 300 * "m" + "a", "hf_root=" + 300 * "m" + "b", "hf_root"),
    (MPI + ",hf_root=model", MPI + ",hf_root=app", "hf_root"),
    (MPI + ",deadline=3", MPI + ",deadline=4", "deadline")])
def test_options_that_differ(job, stores, one, other, word):
    stores(3)
    refused(job(stores.pattern, 3, start=False, contexts=[(2, one),
                                                          (1, other)],
                expect_log=[r"ckptfs: error: .*rank"]), word)


def test_versions_that_differ(job, stores, binary, tmp_path):
    """Another version: the same program, but for its number."""
    stores(2)
    text = subprocess.run([binary, "--version"], capture_output=True,
                          check=True).stdout
    version = re.search(rb"\d+\.\d+\.\d+", text)[0]
    other = tmp_path / "other" / "ckptfs"
    other.parent.mkdir()
    for module in pathlib.Path(binary).parent.glob("*.so"):
        place(module, other.parent / module.name)
    content = pathlib.Path(binary).read_bytes()
    assert version in content
    changed = version[:-1] + (b"8" if version[-1:] == b"9" else b"9")
    other.write_bytes(content.replace(version, changed))
    other.chmod(0o755)
    the_job = job(stores.pattern, 2, start=False, contexts=[(1, MPI), (1, MPI)],
                  programs=[binary, other],
                  expect_log=[r"ckptfs: error: .*rank"])
    refused(the_job, "version", version.decode(), changed.decode())


@pytest.mark.parametrize("what", ["store", "mount", "option", "deadline"])
def test_a_start_that_fails(job, stores, tmp_path, what):
    """One rank cannot: it says why, and the others do not wait for it."""
    made = stores(3)
    options, contexts = MPI, None
    if what == "store":
        made[1].rmdir()
    elif what == "option":
        options += ",no_such_option"
    elif what == "deadline":
        options += ",deadline=soon"
    the_job = job(stores.pattern, 3, start=False, options=options,
                  contexts=contexts, allow_log=[GONE])
    if what == "mount":
        the_job.mounts[1].rmdir()
    names = {"store": "store1", "mount": "mnt1", "option": "no_such_option",
             "deadline": "deadline"}
    refused(the_job, names[what])


def test_patterns(job, stores, tmp_path):
    """%r and %h in the paths, and in the name of the log file."""
    host = os.uname().nodename
    folder = tmp_path / ("on-" + host)
    for rank in range(2):
        (folder / str(rank)).mkdir(parents=True)
        (folder / str(rank) / "file").write_text(str(rank))
    for rank in range(2):
        os.rename(folder / str(rank) / "file", folder / str(rank) /
                  ("file%d" % rank))
    the_job = job(tmp_path / "on-%h" / "%r", 2,
                  options="log=%s/daemon%%r.log" % tmp_path)
    for rank, mount in enumerate(the_job.mounts):
        assert sorted(os.listdir(mount)) == ["file0", "file1"]
        assert the_job.status(rank)["store"] == str(folder / str(rank))
        assert (tmp_path / ("daemon%d.log" % rank)).exists()


def test_one_rank(job, stores):
    """A job of one daemon is a mount like any other."""
    made = stores(1)
    data = util.tensor_bytes(step_of(made * 2, 2))
    the_job = job(stores.pattern, 1)
    assert w(the_job, 0).read_bytes() == data
    the_job.unmount(0)
    assert the_job.wait() == 0


# What another has mounted there

def mpirun(tmp_path, binary, source, point, *more):
    return subprocess.run(
        ["mpirun", "--oversubscribe", "-n", "2", binary, source, str(point),
         *more], cwd=tmp_path, env={**os.environ, **environment()},
        capture_output=True, text=True, timeout=patience(60))


@pytest.fixture
def point(tmp_path):
    """Two stores, and a mount point at which nothing is left."""
    for rank in range(2):
        (tmp_path / ("store%d" % rank)).mkdir()
    made = tmp_path / "other"
    made.mkdir()
    yield made
    subprocess.run(["umount", "-l", str(made)], stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("source, options", [
    ("nothing", ""), ("store%r", "nonsense"), ("store%r", "")])
def test_a_failed_start_unmounts_nothing(binary, tmp_path, point, source,
                                         options):
    subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True)
    (point / "kept").write_bytes(b"kept")
    done = mpirun(tmp_path, binary, source, point,
                  *(["-o", options] if options else []))
    assert done.returncode != 0
    assert (point / "kept").read_bytes() == b"kept"


@pytest.mark.parametrize("spelled", ["other", "./other/../other"])
def test_one_mount_point_for_two(binary, tmp_path, point, spelled):
    """%r was forgotten: refused, and nothing stays there."""
    done = mpirun(tmp_path, binary, "store%r", tmp_path / spelled)
    assert done.returncode != 0
    said = "ranks 0 and 1 on %s have the same mount point: with %%r in its " \
        "name each has its own" % os.uname().nodename
    assert done.stderr.count(said) == 1, done.stderr
    assert not is_mounted(point)


def test_one_mount_over_another(three, binary, tmp_path):
    """Who ends takes away his own mount only, wherever it stands."""
    the_job, data = three()
    check_all(the_job, data)
    under = the_job.mounts[1]
    store = tmp_path / "over"
    store.mkdir()
    (store / "file").write_bytes(b"over")
    subprocess.run([binary, str(store), str(under)], check=True)
    try:
        assert (under / "file").read_bytes() == b"over"
        the_job.kill(1, signal.SIGTERM)
        the_job.wait_state(1, 0, "left")
        poll(lambda: not is_alive(the_job.pid(1)), 10, "it ends")
        assert (under / "file").read_bytes() == b"over"
    finally:
        subprocess.run(["fusermount3", "-u", str(under)], check=True)
    # With it goes the dead one below.
    poll(lambda: not is_mounted(under), 10, "nothing is left")
    the_job.end()


def test_after_a_mount_that_is_dead(three, job, stores, tmp_path):
    """Daemon and watcher were killed: the next start takes it away."""
    the_job, data = three(allow_log=GONE)
    check_all(the_job, data)
    again = job(stores.pattern, 3, start=False, options=MPI,
                mount=tmp_path / "mounts0/mnt%r")
    watchers = [the_job.watcher(r) for r in range(3)]
    for watcher in watchers:
        os.kill(watcher, signal.SIGSTOP)
    for rank in range(3):
        the_job.kill(rank)
    # With the first one mpirun ends the others.
    for watcher in watchers:
        send(watcher, signal.SIGKILL)
    the_job.wait()
    # A stat may be answered from the kernel's cache.
    poll(lambda: util.errno_of(os.statvfs, the_job.mounts[0]) ==
         errno.ENOTCONN, 10, "the mount is dead")
    again.start(30)
    check_all(again, data)
    again.end()
    assert not any(is_mounted(m) for m in again.mounts)


def test_a_restart_that_does_not_wait(three, job, stores, tmp_path):
    """The new job mounts over the old one, which is about to end."""
    the_job, data = three(allow_log=GONE)
    check_all(the_job, data)
    again = job(stores.pattern, 3, start=False, options=MPI,
                mount=tmp_path / "mounts0/mnt%r")
    again.start(30)
    the_job.proc.send_signal(signal.SIGTERM)
    the_job.wait()
    poll(lambda: not the_job.processes(), 10, "the old job is gone")
    check_all(again, data)
    again.end()
    assert not any(is_mounted(m) for m in again.mounts)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "unmount"])
def test_a_mount_right_after_the_old_one(three, binary, tmp_path, how):
    """It has the device number of the old one again, and stays."""
    the_job, data = three(allow_log=GONE)
    check_all(the_job, data)
    pid, point = the_job.pid(1), the_job.mounts[1]
    store = tmp_path / "new"
    store.mkdir()
    (store / "file").write_bytes(b"new")
    if how == "unmount":
        subprocess.run(["fusermount3", "-u", str(point)], check=True)
    else:
        os.kill(pid, getattr(signal, how))
    subprocess.run([binary, str(store), str(point)], check=True)
    try:
        poll(lambda: not is_alive(pid), 10, "the old daemon ends")
        the_job.wait_state(1, 0, "lost" if how == "SIGKILL" else "left")
        # What its watcher still does is done when that has nobody to wait for.
        for rank in (0, 2):
            the_job.unmount(rank)
        the_job.wait()
        assert (point / "file").read_bytes() == b"new"
    finally:
        subprocess.run(["fusermount3", "-u", str(point)], check=True)
    poll(lambda: not is_mounted(point), 10, "nothing is left")


def test_two_jobs_in_quick_succession(three, job, stores, tmp_path):
    """The second one ends while the first one still does."""
    first, data = three(allow_log=GONE)
    second = job(stores.pattern, 3, start=False, options=MPI, allow_log=GONE,
                 mount=tmp_path / "mounts0/mnt%r")
    first.proc.send_signal(signal.SIGTERM)
    second.start(30)
    second.proc.send_signal(signal.SIGTERM)
    for each in first, second:
        each.wait()
        poll(lambda: not each.processes(), 10, "no process stays")
    assert not any(is_mounted(m) for m in second.mounts)
