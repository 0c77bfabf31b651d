"""What programs do with the files of a mount, system call by system call."""

import fcntl
import mmap
import os
import socket
import subprocess

import numpy as np
import pytest
import torch

import util
from sample import NAMES, open_file, pread_all, spans

PAGE = 4096


@pytest.mark.parametrize("name", NAMES)
def test_pread(files, rng, name):
    for path, data in ((files.raw(name), files.oracle[name]),
                       (files.npy(name), files.npy_bytes(name))):
        with open_file(path) as file:
            for offset, size in spans(rng, len(data), 40):
                assert pread_all(file.fileno(), size, offset) == \
                    data[offset:offset + size], (offset, size)


@pytest.mark.parametrize("name", ["rows", "cols", "fine", "odd", "turned",
                                  "scalar", "empty"])
def test_direct(files, rng, name):
    data = files.oracle[name]
    with open_file(files.raw(name), os.O_DIRECT) as file:
        for offset, size in list(spans(rng, len(data), 15)) + [
                (0, 16 << 20), (PAGE, PAGE), (1 << 20, 1 << 20), (3, 5)]:
            buffer = mmap.mmap(-1, max(size, 1))
            got = os.preadv(file.fileno(), [buffer], offset)
            want = data[offset:offset + len(buffer)]
            assert buffer[:got] == want[:got], (offset, size)
            # A direct read is short at the end of the file only.
            assert got == len(want), (offset, size)
            buffer.close()


def test_direct_between_buffered(files):
    """Both ways see the same bytes, also after the cache was dropped."""
    data = files.oracle["cols"]
    with open_file(files.raw("cols")) as cached, \
            open_file(files.raw("cols"), os.O_DIRECT) as direct:
        for offset in (0, 100000, 5 << 20):
            assert pread_all(cached.fileno(), 300000, offset) == \
                data[offset:offset + 300000]
            os.posix_fadvise(cached.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert pread_all(direct.fileno(), 300000, offset) == \
                data[offset:offset + 300000]
            assert pread_all(cached.fileno(), 300000, offset) == \
                data[offset:offset + 300000]


@pytest.mark.parametrize("advice", ["NORMAL", "RANDOM", "SEQUENTIAL",
                                    "WILLNEED"])
def test_advice(files, advice):
    data = files.oracle["fine"]
    with open_file(files.raw("fine")) as file:
        os.posix_fadvise(file.fileno(), 0, 0,
                         getattr(os, "POSIX_FADV_" + advice))
        assert file.readall() == data


@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE],
                         ids=["shared", "private"])
@pytest.mark.parametrize("name", ["rows", "cols", "fine", "odd", "tiny"])
def test_mmap(files, rng, name, flags):
    data = files.oracle[name]
    with open_file(files.raw(name)) as file:
        with mmap.mmap(file.fileno(), 0, flags=flags,
                       prot=mmap.PROT_READ) as view:
            for offset, size in spans(rng, len(data), 40):
                assert view[offset:offset + size] == \
                    data[offset:offset + size]
            assert view[:] == data


def test_mmap_write(files):
    data = files.oracle["rows"]
    with open_file(files.raw("rows")) as file:
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE,
                       prot=mmap.PROT_READ | mmap.PROT_WRITE) as view:
            view[5:9] = b"mine"
            assert view[:12] == data[:5] + b"mine" + data[9:12]
        assert os.pread(file.fileno(), 12, 0) == data[:12]
        with pytest.raises(PermissionError):
            mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED,
                      prot=mmap.PROT_READ | mmap.PROT_WRITE)


def test_numpy_and_torch(files):
    for name in ("rows", "cols", "turned", "cube", "odd"):
        want = files.tensors[name].numpy()
        assert np.load(files.npy(name)).tobytes() == want.tobytes()
        mapped = np.load(files.npy(name), mmap_mode="r")
        assert mapped.dtype == want.dtype and mapped.shape == want.shape
        assert mapped.tobytes() == want.tobytes()
        flat = np.fromfile(files.raw(name), want.dtype)
        assert flat.tobytes() == want.tobytes()
    copy = np.load(files.npy("turned"), mmap_mode="c")
    copy[0, 0] = 77
    assert copy[0, 0] == 77
    tensor = torch.from_file(str(files.raw("bf16")), shared=False,
                             size=129 * 64, dtype=torch.bfloat16)
    assert util.tensor_bytes(tensor) == files.oracle["bf16"]


@pytest.mark.parametrize("name", ["rows", "fine", "odd", "empty"])
def test_sendfile(files, tmp_path, name):
    data = files.oracle[name]
    with open_file(files.raw(name)) as file, \
            open(tmp_path / "out", "wb", buffering=0) as out:
        position = 0
        while True:
            sent = os.sendfile(out.fileno(), file.fileno(), position, 1 << 22)
            if sent == 0:
                break
            position += sent
    assert (tmp_path / "out").read_bytes() == data


def test_sendfile_to_a_socket(files):
    data = files.oracle["bf16"]
    left, right = socket.socketpair()
    with left, right, open_file(files.raw("bf16")) as file:
        position, got = 0, b""
        while position < len(data):
            position += os.sendfile(left.fileno(), file.fileno(), position,
                                    8192)
            while len(got) < position:
                got += right.recv(position - len(got))
    assert got == data


def test_splice(files):
    data = files.oracle["fine"]
    reader, writer = os.pipe()
    with open_file(files.raw("fine")) as file:
        got, offset = b"", 12345
        while len(got) < 300000:
            moved = os.splice(file.fileno(), writer, 65536,
                              offset_src=offset + len(got))
            part = b""
            while len(part) < moved:
                part += os.read(reader, moved - len(part))
            got += part
    os.close(reader)
    os.close(writer)
    assert got == data[offset:offset + len(got)]


def test_copy_file_range(files, tmp_path):
    """The bytes, or the kernel's EXDEV between two kinds of file systems."""
    data = files.oracle["rows"]
    with open_file(files.raw("rows")) as file, \
            open(tmp_path / "out", "wb", buffering=0) as out:
        done = 0
        while done < len(data):
            try:
                moved = os.copy_file_range(file.fileno(), out.fileno(),
                                           len(data) - done)
            except OSError as error:
                util.same_errno(error.errno, "EXDEV")
                assert done == 0
                return
            assert moved > 0
            done += moved
    assert (tmp_path / "out").read_bytes() == data


def test_lseek(files):
    size = len(files.oracle["odd"])
    with open_file(files.raw("odd")) as file:
        fd = file.fileno()
        assert os.lseek(fd, 10, os.SEEK_SET) == 10
        assert os.lseek(fd, 5, os.SEEK_CUR) == 15
        assert os.read(fd, 3) == files.oracle["odd"][15:18]
        assert os.lseek(fd, -4, os.SEEK_END) == size - 4
        assert os.read(fd, 100) == files.oracle["odd"][-4:]
        assert os.read(fd, 100) == b""
        assert os.lseek(fd, 100, os.SEEK_END) == size + 100
        assert os.read(fd, 1) == b""
        assert os.lseek(fd, 0, os.SEEK_DATA) == 0
        assert os.lseek(fd, 777, os.SEEK_DATA) == 777
        assert os.lseek(fd, 0, os.SEEK_HOLE) == size
        for whence in os.SEEK_DATA, os.SEEK_HOLE:
            util.same_errno(util.errno_of(os.lseek, fd, size, whence),
                            "ENXIO")
        util.same_errno(util.errno_of(os.lseek, fd, -1, os.SEEK_SET),
                        "EINVAL")


def test_vectored_dup_and_fork(files):
    data = files.oracle["rows"]
    with open_file(files.raw("rows")) as file:
        parts = [bytearray(n) for n in (1, 4095, 100000, 3)]
        assert os.preadv(file.fileno(), parts, 1001) == 104099
        assert b"".join(parts) == data[1001:1001 + 104099]
        copy = os.dup(file.fileno())
        assert os.pread(copy, 10, 5) == data[5:15]
        os.close(copy)
        assert os.pread(file.fileno(), 10, 5) == data[5:15]
        done = subprocess.run(["head", "-c", "100000"], stdin=file,
                              capture_output=True, check=True)
        assert done.stdout == data[:100000]


def test_locks(files):
    with open_file(files.raw("tiny")) as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_many_open_files(files):
    handles = [open_file(files.raw(n)) for n in ("tiny", "odd", "fine")
               for _ in range(100)]
    for index, handle in enumerate(handles):
        name = ("tiny", "odd", "fine")[index // 100]
        assert handle.read(16) == files.oracle[name][:16]
        handle.close()
    for _ in range(500):
        with open_file(files.raw("tiny")) as file:
            assert file.read() == files.oracle["tiny"]
