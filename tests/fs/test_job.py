"""The life of a job of several daemons, from mpirun to the last process."""

import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

import util
from job import environment, is_alive, place, processes_of
from mounting import SLOW, poll
from test_union import step_of, stores  # noqa: F401
from union import direct

# Sanitizers see the same code by way of the union and the faults.
pytestmark = pytest.mark.heavy

MPI = "force_mpi"
# Reads that need a rank which is gone are logged.
GONE = r"ckptfs: error: "


def wait_for(binary, mount, *args):
    return subprocess.run([binary, "--wait", str(mount), *args],
                          capture_output=True, text=True, timeout=60 * SLOW)


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


# status.json, metrics, --wait

COUNTS = {"requests", "bytes", "errors"}


def test_status(three, stores):
    the_job, data = three()
    check_all(the_job, data)
    hosts = set()
    for rank in range(3):
        status = the_job.status(rank)
        assert status["state"] == "serving" and status["rank"] == rank
        assert re.fullmatch(r"\d+\.\d+.*", status["version"])
        assert status["mount"] == str(the_job.mounts[rank])
        assert status["store"] == str(the_job.stores[rank])
        assert os.readlink("/proc/%d/exe" % status["pid"]) == the_job.program
        assert [r["rank"] for r in status["ranks"]] == [0, 1, 2]
        assert [r["state"] for r in status["ranks"]] == [
            "self" if r == rank else "up" for r in range(3)]
        assert [r["store"] for r in status["ranks"]] == [
            "self" if r == rank else "peer" for r in range(3)]
        hosts |= {r["host"] for r in status["ranks"]} | {status["host"]}
        assert set(status["reads"]) >= {"local", "peer"}
        for counts in *status["reads"].values(), status["served"]:
            assert set(counts) >= COUNTS
        assert [c["path"] for c in status["catalogs"]] == ["step"]
    assert hosts == {os.uname().nodename}
    # Everybody has the same catalog.
    catalogs = [the_job.status(r)["catalogs"] for r in range(3)]
    assert catalogs[0] == catalogs[1] == catalogs[2]
    one = catalogs[0][0]
    assert one["tensors"] == 1 and one["objects"] == 0
    assert one["bytes"] > 0 and re.fullmatch("[0-9a-f]{32}", one["hash"])


def test_stores_are_opened_directly(three):
    the_job, data = three(options="")
    check_all(the_job, data)
    for rank in range(3):
        status = the_job.status(rank)
        assert [r["store"] for r in status["ranks"]] == [
            "self" if r == rank else "direct" for r in range(3)]
        assert status["reads"]["peer"]["requests"] == 0


def test_counts_add_up(three):
    """Over the ranks: what was read from peers is what they served."""
    the_job, data = three()
    # What is served to make a catalog is nobody's reading.
    check_all(the_job, data)
    before = [the_job.status(r) for r in range(3)]
    check_all(the_job, data)
    after = [the_job.status(r) for r in range(3)]

    def more(key, *path):
        def value(status):
            for name in path:
                status = status[name]
            return status[key]
        return [value(b) - value(a) for a, b in zip(before, after)]

    third = len(data) // 3
    # An archive has to be opened to know where in it a tensor lies.
    for mine in more("bytes", "reads", "local"):
        assert third <= mine < third + 8192
    for theirs in more("bytes", "reads", "peer"):
        assert 2 * third <= theirs < 2 * third + 8192
    assert sum(more("bytes", "reads", "peer")) == sum(more("bytes", "served"))
    assert sum(more("requests", "reads", "peer")) == \
        sum(more("requests", "served")) > 0
    for status in after:
        assert status["reads"]["peer"]["errors"] == 0
        assert status["served"]["errors"] == 0


LINE = re.compile(r"(?:# (?:HELP|TYPE) \w+ .+|\w+(?:\{(?:\w+=\"[^\"]*\",?)*\})?"
                  r" (?:[0-9.e+-]+|\+Inf|NaN))")


def test_metrics(three):
    """Prometheus text, with the figures of status.json."""
    the_job, data = three()
    check_all(the_job, data)
    for rank in range(3):
        text = (the_job.mounts[rank] / ".ckptfs/metrics").read_text()
        assert text.endswith("\n")
        for line in text.splitlines():
            assert LINE.fullmatch(line), line
        found = the_job.metrics(rank)
        status = the_job.status(rank)
        for name in found:
            assert name.startswith("ckptfs_"), name
        base = {re.sub(r"_(bucket|sum|count)?(\{.*)?$", "", n)
                for n in found} | {n.split("{")[0] for n in found}
        types = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M)
        assert len(types) == len(set(types)) > 3
        assert {n for n, _ in types} <= base
        for value in (status["reads"]["peer"]["bytes"],
                      status["served"]["bytes"]):
            assert value > 0 and float(value) in found.values(), text
        check_histograms(found)


def check_histograms(found):
    """Buckets rise to the count; there is at least one with something."""
    groups = {}
    for name, value in found.items():
        match = re.fullmatch(r"(\w+)_bucket\{(.*?),?le=\"(.*)\"\}", name)
        if match:
            groups.setdefault((match[1], match[2]), []).append(
                (float(match[3]), value))
    assert groups
    for (name, labels), buckets in groups.items():
        values = [v for _, v in sorted(buckets)]
        assert values == sorted(values), name
        assert sorted(buckets)[-1][0] == float("inf")
        count = found["%s_count%s" % (name, "{%s}" % labels if labels
                                      else "")]
        assert count == values[-1], name
    assert any(max(v for _, v in b) > 0 for b in groups.values())


def test_status_of_one_process(ckpt, store):
    """The same files, and no rank but one."""
    import json
    store("torch-2.6.0/dtensor4", "step")
    mount = ckpt(store.root)
    (mount.path / "step/tensors/row").read_bytes()
    status = json.loads((mount.path / ".ckptfs/status.json").read_text())
    assert status["state"] == "serving" and status["pid"] == mount.pid
    assert [(r["rank"], r["state"]) for r in status["ranks"]] == [(0, "self")]
    assert (mount.path / ".ckptfs/metrics").read_text().count("ckptfs_") > 3
    assert os.listdir(mount.path) == ["step"]


def test_no_mpi_in_one_process(ckpt, store):
    """Outside of mpirun no library of MPI is loaded, and no watcher is."""
    store("torch-2.6.0/dtensor4", "step")
    mount = ckpt(store.root)
    (mount.path / "step/tensors/row").read_bytes()
    maps = pathlib.Path("/proc/%d/maps" % mount.pid).read_text()
    assert "libmpi" not in maps and "open-pal" not in maps
    children = pathlib.Path("/proc/%d/task/%d/children" % (
        mount.pid, mount.pid)).read_text()
    assert children == ""


def test_processes(three):
    """mpirun has the watchers for children, and they the daemons."""
    the_job, data = three()
    for rank in range(3):
        watcher, daemon = the_job.watcher(rank), the_job.pid(rank)
        command = pathlib.Path("/proc/%d/cmdline" % watcher).read_bytes()
        assert command.startswith(b"ckptfs-watcher"), command
        command = pathlib.Path("/proc/%d/cmdline" % daemon).read_bytes()
        assert os.path.basename(command.split(b"\0")[0]) == b"ckptfs"
        maps = pathlib.Path("/proc/%d/maps" % daemon).read_text()
        assert "libmpi" in maps
        maps = pathlib.Path("/proc/%d/maps" % watcher).read_text()
        # Other tests end with the watcher alone: it is light.
        assert "vader_segment" not in maps
    assert len(the_job.processes()) == 1 + 2 * 3


def test_wait_until_all_serve(three, binary):
    the_job, _ = three(start=False)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        # Before there is anything to wait for, too.
        early = [pool.submit(wait_for, binary, m, "--timeout", "30")
                 for m in the_job.mounts]
        the_job.launch()
        for each in early:
            assert each.result().returncode == 0, each.result().stderr
    for rank in range(3):
        assert the_job.is_up(rank)
        done = wait_for(binary, the_job.mounts[rank])
        assert (done.returncode, done.stderr) == (0, "")


def test_wait_names_who_is_missing(three, binary):
    the_job, _ = three(allow_log=GONE)
    the_job.kill(2)
    the_job.wait_state(2, 0, "lost")
    done = wait_for(binary, the_job.mounts[0], "--timeout", "1")
    assert done.returncode == 1
    host = os.uname().nodename
    assert "rank 2 (host %s): lost" % host in done.stdout + done.stderr
    assert "rank 1" not in done.stdout + done.stderr


def test_wait_where_nothing_is(binary, tmp_path):
    (tmp_path / "point").mkdir()
    begin = time.monotonic()
    done = wait_for(binary, tmp_path / "point", "--timeout", "1")
    assert done.returncode == 1 and done.stderr
    assert time.monotonic() - begin < 5 * SLOW
    for args in ((), ("--timeout",), ("x", "--timeout", "often")):
        done = subprocess.run([binary, "--wait", *args], capture_output=True,
                              text=True)
        assert done.returncode == 2 and done.stderr, args


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
            reader.wait(20 * SLOW)
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
        try:
            os.kill(pid, signal.SIGINT)
        except ProcessLookupError:
            pass
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
        assert time.monotonic() - begin < 2 * SLOW
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
        poll(lambda: has_open(reader.pid, the_job.mounts[0]), 10, "it waits")
        assert reader.poll() is None
    finally:
        reader.kill()
        begin = time.monotonic()
        reader.wait(10)
    assert time.monotonic() - begin < 2 * SLOW
    the_job.cont(2)
    the_job.wait_state(2, 0, "up", seconds=20)
    check_all(the_job, data)


def has_open(pid, folder):
    """Whether a process has opened a file below a folder."""
    try:
        return any(os.readlink(link).startswith(str(folder) + "/")
                   for link in pathlib.Path("/proc/%d/fd" % pid).iterdir())
    except OSError:
        return False


# What another has mounted there

@pytest.mark.parametrize("source, options", [
    ("nothing", ""), ("store%r", "nonsense")])
def test_a_failed_start_unmounts_nothing(binary, tmp_path, source, options):
    for rank in range(2):
        (tmp_path / ("store%d" % rank)).mkdir()
    point = tmp_path / "other"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True)
    try:
        (point / "kept").write_bytes(b"kept")
        done = subprocess.run(
            ["mpirun", "--oversubscribe", "-n", "2", binary, source,
             str(point)] + (["-o", options] if options else []),
            cwd=tmp_path, env={**os.environ, **environment()},
            capture_output=True, text=True, timeout=60 * SLOW)
        assert done.returncode != 0
        assert (point / "kept").read_bytes() == b"kept"
    finally:
        subprocess.run(["umount", "-l", str(point)])
