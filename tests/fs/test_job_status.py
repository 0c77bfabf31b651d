"""status.json, metrics, and --wait, of several daemons and of one."""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import time

import pytest

from mounting import patience
from test_job import GONE, check_all, three, wait_for  # noqa: F401
from test_union import stores  # noqa: F401

pytestmark = pytest.mark.heavy

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
    point = tmp_path / "point"
    point.mkdir()
    begin = time.monotonic()
    done = wait_for(binary, point, "--timeout", "0")
    assert done.returncode == 1
    assert done.stderr == "ckptfs: %s: no ckptfs is mounted there\n" % point
    assert time.monotonic() - begin < patience(5)
    # Who waits long is told what for.
    done = wait_for(binary, tmp_path / "typo", "--timeout", "5")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == \
        "ckptfs: %s: no ckptfs is mounted there yet" % (tmp_path / "typo")


@pytest.mark.parametrize("args", [
    ("--wait", "POINT", "--timeout", "0"), ("--wait=POINT", "--timeout=0"),
    ("--timeout", "0", "--wait", "POINT"), ("--wait", "--timeout", "0",
                                            "POINT")])
def test_spellings_of_wait(binary, tmp_path, args):
    args = [a.replace("POINT", str(tmp_path)) for a in args]
    done = subprocess.run([binary, *args], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no ckptfs is mounted there" in done.stderr


@pytest.mark.parametrize("args", [
    ("--wait",), ("--wait", "--timeout"), ("--wait", "x", "--timeout", "often"),
    ("--wait", "x", "y"), ("--waiting", "x"), ("--timeout", "1"),
    ("--wait", "x", "--timeout=")])
def test_bad_arguments_of_wait(binary, args):
    done = subprocess.run([binary, *args], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr, args
