"""What is not asked for is not read, and nobody at work means no work."""

import ctypes
import mmap
import os
import pathlib
import time

import pytest
import torch

import util
from mounting import poll

ROWS, WIDTH = 16384, 1024
ROW = WIDTH * 4


def resident(path):
    """Bytes of a file that are in the page cache."""
    size = os.path.getsize(path)
    with open(path, "rb") as file, mmap.mmap(
            file.fileno(), size, flags=mmap.MAP_PRIVATE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE) as view:
        start = ctypes.c_char.from_buffer(view)
        pages = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
        code = util.LIBC.mincore(ctypes.c_void_p(ctypes.addressof(start)),
                                 ctypes.c_size_t(size), pages)
        del start
    assert code == 0
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def evict(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident(path)


@pytest.fixture
def big(ckpt, tmp_path):
    """A tensor of 64 MiB in one shard, none of it in memory."""
    tensor = torch.arange(ROWS * WIDTH, dtype=torch.int32).reshape(ROWS, WIDTH)
    util.save_chunks(tmp_path / "big", {
        "w": (tensor, [((0, 0), (ROWS, WIDTH))])})
    data = tmp_path / "big" / "__0_0.distcp"
    if evict(data) > 0:
        pytest.skip("this file system has no page cache to look at")
    return ckpt(tmp_path / "big"), data, tensor


def test_attributes_need_no_data(big):
    mount, data, _ = big
    for view in "tensors", "npy", "objects":
        for entry in os.scandir(mount.path / view):
            entry.stat()
            util.xattrs(entry.path)
    (mount.path / "tensors.json").read_bytes()
    (mount.path / "tensors" / "w[5:9,3:70]").stat()
    assert resident(data) == 0


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["cached", "direct"])
@pytest.mark.parametrize("text, size", [
    ("w[8000:8004]", 4 * ROW), ("w[4000:4008,100:110]", 8 * 40),
    ("w[16380:]", 4 * ROW)])
def test_a_slice_costs_what_it_holds(big, text, size, flags):
    mount, data, tensor = big
    index = eval("tensor" + text[1:], {"tensor": tensor})
    fd = os.open(mount.path / "tensors" / text, os.O_RDONLY | flags)
    try:
        assert os.pread(fd, size + 1, 0) == util.tensor_bytes(index)
    finally:
        os.close(fd)
    # Beside the rows: both ends of the archive, and read-ahead.
    assert 0 < resident(data) < 1 << 20


def test_a_small_direct_read_of_the_whole(big):
    mount, data, tensor = big
    fd = os.open(mount.path / "tensors" / "w", os.O_RDONLY | os.O_DIRECT)
    try:
        assert os.pread(fd, 4096, 5000 * ROW) == \
            util.tensor_bytes(tensor[5000])
    finally:
        os.close(fd)
    assert resident(data) < 1 << 20


def switches(pid):
    total = 0
    for task in pathlib.Path("/proc/%d/task" % pid).iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


def test_idle(ckpt, sample):
    """Nobody asks, nothing runs."""
    mount = ckpt(sample.root)
    (mount.path / "step-1" / "tensors" / "cols").read_bytes()

    def quiet():
        before = switches(mount.pid)
        time.sleep(1.5)
        return switches(mount.pid) == before

    poll(quiet, 10, "no wake-up in 1.5 s")


def test_descriptors_are_given_back(ckpt, sample):
    """Neither reads nor slices leave anything open."""
    mount = ckpt(sample.root)
    folder = pathlib.Path("/proc/%d/fd" % mount.pid)

    def visit():
        for name in ("rows", "cols", "tiny", "rows[3:5]", "cols[7:9,1:3]"):
            (mount.path / "step-1" / "tensors" / name).read_bytes()
        os.listdir(mount.path / "step-1" / "npy")
        (mount.path / "step-1" / "__0_0.distcp").read_bytes()

    visit()
    before = len(list(folder.iterdir()))
    for _ in range(50):
        visit()
    # The kernel sends some releases after close has returned.
    poll(lambda: len(list(folder.iterdir())) <= before + 2, 10,
         "descriptors are closed")


@pytest.mark.heavy
def test_slices_are_forgotten(ckpt, tmp_path):
    """However many slices were opened, they do not fill the memory."""
    tensor = torch.arange(300 * 300, dtype=torch.int32).reshape(300, 300)
    util.save_chunks(tmp_path / "step", {
        "w": (tensor, [((0, 0), tensor.shape)])})
    mount = ckpt(tmp_path / "step")
    status = pathlib.Path("/proc/%d/status" % mount.pid)

    def memory():
        return int(status.read_text().split("RssAnon:")[1].split()[0])

    def look(rows):
        """At 300 slices of each row, none of them twice."""
        for row in rows:
            for column in range(300):
                path = mount.path / "tensors" / ("w[%d,%d:]" % (row, column))
                assert os.open(path, os.O_RDONLY) == kept + 1
                assert os.pread(kept + 1, 4, 0) == int(
                    tensor[row, column]).to_bytes(4, "little")
                os.close(kept + 1)

    kept = os.open(mount.path / "tensors/w[7,:]", os.O_RDONLY)
    look(range(60))
    before = memory()
    look(range(60, 300))
    assert memory() < before + 8 * 1024
    assert os.pread(kept, 1200, 0) == tensor[7].numpy().tobytes()
    os.close(kept)
