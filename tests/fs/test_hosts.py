"""Daemons on three hosts, each with a network of its own, over TCP."""

import os
import shutil
import subprocess

import pytest

import union
import util
from mounting import patience, poll
from test_faults import DEADLINE, Readers, at_once, check_back, \
    check_cut_off, timed
from test_job import ROWS, check_all, w, wait_for
from test_union import FIXTURES, STEPS, seen, step_of, stores, put  # noqa: F401
from union import direct

HOSTS = 3
BACK = {"cut": "mend", "disable": "enable"}


@pytest.fixture
def whole(tmp_path):
    root = tmp_path / "whole"
    for name in "plain", "local", "adamw", "types", "zstd", "hf/sharded":
        shutil.copytree(FIXTURES / STEPS[name], root / name)
    (root / "hf/sharded/config.json").write_text('{"model_type": "none"}')
    for marker in root.rglob("*.metadata"):
        os.utime(marker)
    return root


@pytest.fixture
def three(job, stores, hosts):
    """A shard of 1 MiB on each host; (the job, the bytes)."""
    def start(**more):
        made = stores(HOSTS)
        data = util.tensor_bytes(step_of(made, HOSTS, rows=3072, width=256))
        more.setdefault("options", "deadline=%d" % DEADLINE)
        return job(stores.pattern, HOSTS, hosts=hosts,
                   allow_log=[r"ckptfs: error: "], **more), data

    yield start
    hosts.mend_all()


@pytest.mark.timeout(180)
def test_everything_on_every_host(ckpt, job, stores, hosts, whole, rng):
    """No force_mpi: other hosts' stores cannot be opened."""
    oracle = union.Oracle(rng, ckpt(whole).path, whole)
    owners = union.spread(rng, whole, stores(HOSTS))
    the_job = job(stores.pattern, HOSTS, hosts=hosts)
    for rank, mount in enumerate(the_job.mounts):
        oracle.check(mount, owners)
        status = the_job.status(rank)
        assert status["host"] == hosts.names[rank]
        assert [r["host"] for r in status["ranks"]] == hosts.names
        assert [r["store"] for r in status["ranks"]] == [
            "self" if r == rank else "peer" for r in range(HOSTS)]


@pytest.mark.heavy
def test_names_of_hosts_in_paths(job, hosts, tmp_path):
    """%h is the name of the host."""
    for name in hosts.names:
        (tmp_path / ("store-" + name)).mkdir()
        (tmp_path / ("store-" + name) / name).write_text(name)
        (tmp_path / ("mnt-" + name)).mkdir()
    the_job = job(tmp_path / "store-%h", HOSTS, hosts=hosts, start=False,
                  mount=tmp_path / "mnt-%h")
    the_job.mounts = [tmp_path / ("mnt-" + name) for name in hosts.names]
    the_job.start()
    for mount in the_job.mounts:
        assert sorted(os.listdir(mount)) == hosts.names


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_large_tensor(job, stores, hosts, rng):
    """48 MiB of three shards, on every host at the same time."""
    made = stores(HOSTS)
    tensor = step_of(made, HOSTS, rows=3 * 4096, width=1024)
    data = util.tensor_bytes(tensor)
    the_job = job(stores.pattern, HOSTS, hosts=hosts)
    readers = [subprocess.Popen(["dd", "if=%s" % w(the_job, r), "bs=1M",
                                 "status=none"], stdout=subprocess.PIPE)
               for r in range(HOSTS)]
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(HOSTS) as pool:
        for out, _ in pool.map(lambda p: p.communicate(), readers):
            assert out == data
    for _ in range(10):
        text, index = util.random_slice(rng, tensor.shape)
        for rank in range(HOSTS):
            assert direct(w(the_job, rank, "[%s]" % text)) == \
                util.tensor_bytes(tensor[index]), text


@pytest.mark.heavy
def test_a_store_changes_on_another_host(job, stores, hosts):
    made = stores(HOSTS)
    the_job = job(stores.pattern, HOSTS, hosts=hosts)
    put(made[2], "new", b"new")
    for mount in the_job.mounts:
        seen(mount / "new", b"new")


# Links that fail

@pytest.mark.timeout(120)
@pytest.mark.parametrize("how, rank, times", [
    ("cut", 1, 1), pytest.param("disable", 2, 1, marks=pytest.mark.heavy),
    pytest.param("cut", 0, 2, marks=pytest.mark.heavy)])
def test_link_goes_and_comes(three, hosts, binary, how, rank, times):
    """EIO in time for what is beyond it, and by itself all is well."""
    the_job, data = three()
    check_all(the_job, data)
    others = [r for r in range(HOSTS) if r != rank]
    for _ in range(times):
        getattr(hosts, how)(rank)
        check_cut_off(the_job, data, rank)
        for other in others:
            done = wait_for(binary, the_job.mounts[other], "--timeout", "1")
            assert done.returncode == 1
            assert "rank %d (host h%d): suspect" % (rank, rank) in \
                done.stdout + done.stderr
        getattr(hosts, BACK[how])(rank)
        check_back(the_job, data, rank)
        assert wait_for(binary, the_job.mounts[0]).returncode == 0


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_all_links_go(three, hosts):
    """Everybody is alone with his own shard, until the switch is back."""
    the_job, data = three()
    check_all(the_job, data)
    third = len(data) // 3
    for host in range(HOSTS):
        hosts.cut(host)
    pairs = [(r, o) for r in range(HOSTS) for o in range(HOSTS)]
    found = at_once(lambda pair: timed(w(the_job, pair[0], ROWS[pair[1]])),
                    pairs)
    for (rank, owner), (number, seconds) in zip(pairs, found):
        if owner == rank:
            assert number == 0 and direct(w(the_job, rank, ROWS[owner])) == \
                data[owner * third:(owner + 1) * third]
        else:
            util.same_errno(number, "EIO")
            assert seconds < DEADLINE + patience(1)
    for host in range(HOSTS):
        hosts.mend(host)
    for rank in range(HOSTS):
        check_back(the_job, data, rank)


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_short_interruptions(three, hosts):
    """Shorter than the deadline: a reader waits, and notices nothing."""
    the_job, data = three(options="deadline=20")
    check_all(the_job, data)
    readers = Readers(the_job, data, 1)
    try:
        for _ in range(3):
            readers.wait(True, 15)
            hosts.cut(1)
            poll(lambda: readers.idle() > 0.5, 10, "the readers wait")
            hosts.mend(1)
            readers.wait(True, 15)
    finally:
        found = readers.end()
    assert found == {True}


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_store_changes_behind_a_cut_link(three, hosts, stores):
    """What happened meanwhile is seen when the link is back."""
    the_job, data = three()
    check_all(the_job, data)
    hosts.cut(2)
    check_cut_off(the_job, data, 2)
    put(the_job.stores[2], "later", b"later")
    put(the_job.stores[0], "other", b"other")
    seen(the_job.mounts[1] / "other", b"other", 10)
    hosts.mend(2)
    check_back(the_job, data, 2)
    for mount in the_job.mounts:
        seen(mount / "later", b"later", 10)
        seen(mount / "other", b"other", 10)


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_a_host_is_lost(three, hosts):
    """Its processes are all killed at once, with the connection."""
    the_job, data = three()
    check_all(the_job, data)
    hosts.cut(2)
    hosts.kill_all(2)
    # Nobody was left there who could have unmounted.
    subprocess.run(["fusermount3", "-uz", the_job.mounts[2]])
    hosts.mend(2)
    # Open MPI may end the whole job when one of its own daemons is gone:
    # then everything ends, and else the others go on.
    poll(lambda: the_job.proc.poll() is not None or
         the_job.state(2, 0) in ("suspect", "lost"), 20, "it is noticed")
    if the_job.proc.poll() is None:
        the_job.end()
    the_job.wait_nothing_left()
