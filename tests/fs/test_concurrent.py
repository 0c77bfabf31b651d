"""Many readers at once; this module also runs under a thread sanitizer."""

import concurrent.futures
import multiprocessing
import os
import random
import threading

import pytest
import util

pytestmark = pytest.mark.concurrent

BIG = ("rows", "cols", "fine", "cube", "turned", "odd")
ROUNDS = 60 // util.SLOW + 5


def check_reads(path, data, seed, rounds, flags=0):
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        for _ in range(rounds):
            offset = rng.randrange(len(data))
            size = rng.choice((13, 4096, 70000, 1 << 20))
            got = os.pread(fd, size, offset)
            if got != data[offset:offset + len(got)] or \
                    len(got) != min(size, len(data) - offset):
                return "%s: seed %d: %d at %d" % (path, seed, size, offset)
    finally:
        os.close(fd)
    return ""


def no_faults(results):
    assert [r for r in results if r] == []


def test_threads_on_many_tensors(files):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(check_reads, files.raw(name), files.oracle[name],
                            seed + index, ROUNDS,
                            os.O_DIRECT if index % 3 == 0 else 0)
                for index, name in enumerate(BIG * 2)]
        no_faults(job.result() for job in jobs)


def test_threads_on_one_tensor_from_the_start(files):
    """All of them meet a shard that nobody has opened yet."""
    barrier = threading.Barrier(8)

    def read(name):
        barrier.wait()
        return files.raw(name).read_bytes() == files.oracle[name]

    for name in ("cols", "turned"):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, [name] * 8))


def test_processes(files):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        jobs = [pool.apply_async(check_reads, (
            files.raw(name), files.oracle[name], seed + index, ROUNDS))
            for index, name in enumerate(BIG * 2)]
        no_faults(job.get(util.patience(50)) for job in jobs)


def test_lookups_listings_and_reads(files):
    """Slices are looked up and read while views are listed."""
    stop = threading.Event()

    def list_all():
        count = 0
        while not stop.is_set():
            for view in ("tensors", "npy", "objects"):
                count += len(os.listdir(files.step / view))
                for entry in os.scandir(files.step / view):
                    os.getxattr(entry.path, "user.ckptfs.name")
            (files.step / "tensors.json").read_bytes()
        return count

    def slices(seed):
        rng = random.Random(seed)
        data = files.oracle["rows"]
        for _ in range(ROUNDS):
            begin = rng.randrange(4000)
            end = begin + rng.randrange(99)
            path = files.step / "tensors" / ("rows[%d:%d]" % (begin, end))
            if path.read_bytes() != data[begin * 2048:end * 2048]:
                return "rows[%d:%d]" % (begin, end)
        return ""

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        listers = [pool.submit(list_all) for _ in range(2)]
        jobs = [pool.submit(slices, seed) for seed in range(4)]
        try:
            no_faults(job.result() for job in jobs)
        finally:
            stop.set()
        assert all(job.result() > 0 for job in listers)


def test_many_mounts_of_one_store(ckpt, sample):
    mounts = [ckpt(sample.root).path for _ in range(3)]

    def read(mount):
        return (mount / "step-1" / "tensors" / "fine").read_bytes() == \
            sample.oracle["fine"]

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert all(pool.map(read, mounts))
