# SPDX-License-Identifier: Apache-2.0
"""Files of many tensors, read at random, mapped, by many, and overwritten.

Readers of safetensors map the file: their page faults wait for the daemon.
Nothing here may hang; each test has its timeout.
"""

import concurrent.futures
import errno
import json
import mmap
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

import sample as module
import util
from mounting import patience, poll
from test_change import GONE, SOON, save

MODEL = "model.safetensors"
THREADS = 8
ROUNDS = 40 // util.SLOW + 5


@pytest.fixture
def model(files):
    """The file of the sample's tensors: .path, .tensors, .bytes()"""
    return Model(files.step / "safetensors" / MODEL,
                 {name: files.tensors[name] for name in module.STEP})


class Model:
    def __init__(self, path, tensors):
        self.path, self.tensors = path, tensors

    def bytes(self):
        """Its header, and the data that the library writes."""
        with open(self.path, "rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            file.seek(0)
            header = file.read(start)
        other = safetensors.torch.save(self.tensors)
        return header + other[8 + int.from_bytes(other[:8], "little"):]

    def fault_in(self, got):
        for name, tensor in self.tensors.items():
            if util.tensor_bytes(got[name]) != util.tensor_bytes(tensor):
                return name
        return "" if len(got) == len(self.tensors) else "too many"

    def load(self, *unused):
        return self.fault_in(safetensors.torch.load_file(self.path))

    def slice_fault(self, file, rng):
        name = rng.choice([n for n, t in self.tensors.items() if t.ndim])
        index = util.random_slice(rng, self.tensors[name].shape)[1]
        got = file.get_slice(name)[index]
        if util.tensor_bytes(got) == util.tensor_bytes(
                self.tensors[name][index]):
            return ""
        return "%s%s" % (name, index)

    def slices(self, seed):
        rng = random.Random(seed)
        with safe_open(self.path, "pt") as file:
            for _ in range(ROUNDS):
                fault = self.slice_fault(file, rng)
                if fault:
                    return fault
        return ""


def no_faults(results):
    assert [r for r in results if r] == []


# One reader

@pytest.mark.parametrize("flags", (0, os.O_DIRECT))
def test_random_reads(model, rng, flags):
    want = model.bytes()
    assert os.stat(model.path).st_size == len(want)
    with module.open_file(model.path, flags) as file:
        for offset, size in module.spans(rng, len(want), 60):
            assert module.pread_all(file.fileno(), size, offset) == \
                want[offset:offset + size], (offset, size)


def test_a_mapping(model, rng):
    want = model.bytes()
    with open(model.path, "rb") as file, \
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for offset, size in module.spans(rng, len(want), 60):
            assert mapped[offset:offset + size] == \
                want[offset:offset + size], (offset, size)


def test_aligned_data(files):
    """Tensors of a mapped file can be used where they are."""
    path = files.step / "safetensors" / "rows.safetensors"
    with open(path, "rb") as file:
        assert (8 + int.from_bytes(file.read(8), "little")) % 4096 == 0
    tensor = safetensors.torch.load_file(path)["rows"]
    assert tensor.data_ptr() % 4096 == 0


# Many

@pytest.mark.concurrent
def test_threads_that_load(model):
    """All of them meet a file that nobody has opened yet."""
    barrier = threading.Barrier(THREADS)

    def load(_):
        barrier.wait()
        return model.load()

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        no_faults(pool.map(load, range(THREADS)))


@pytest.mark.concurrent
def test_threads_that_slice(model, rng):
    seed = rng.randrange(1 << 30)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        no_faults(pool.map(model.slices, range(seed, seed + THREADS)))


@pytest.mark.concurrent
def test_threads_that_share_a_mapping(model, rng):
    seed = rng.randrange(1 << 30)
    with safe_open(model.path, "pt") as file:

        def slices(number):
            mine = random.Random(number)
            return "".join(model.slice_fault(file, mine)
                           for _ in range(ROUNDS))

        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            no_faults(pool.map(slices, range(seed, seed + THREADS)))


@pytest.mark.concurrent
def test_pages_that_are_dropped_meanwhile(model, rng):
    """Page faults, direct reads and lookups, while the kernel forgets."""
    seed, stop = rng.randrange(1 << 30), threading.Event()
    want = model.bytes()

    def drop():
        fd = os.open(model.path, os.O_RDONLY)
        while not stop.wait(0.002):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        return ""

    def direct(number):
        mine = random.Random(number)
        with module.open_file(model.path, os.O_DIRECT) as file:
            for offset, size in module.spans(mine, len(want), ROUNDS):
                if module.pread_all(file.fileno(), size, offset) != \
                        want[offset:offset + size]:
                    return "%d at %d" % (size, offset)
        return ""

    def look(number):
        mine = random.Random(number)
        tensor = model.tensors["rows"]
        for _ in range(ROUNDS):
            begin = mine.randrange(4000)
            path = model.path.parent / ("rows[%d:%d].safetensors"
                                        % (begin, begin + 5))
            got = safetensors.torch.load_file(path)["rows"]
            if util.tensor_bytes(got) != util.tensor_bytes(
                    tensor[begin:begin + 5]):
                return str(path)
        return ""

    with concurrent.futures.ThreadPoolExecutor(THREADS + 1) as pool:
        dropping = pool.submit(drop)
        jobs = [pool.submit(job, seed + index) for index, job in enumerate(
            (model.slices, direct, look, model.load) * 2)]
        try:
            no_faults(job.result() for job in jobs)
        finally:
            stop.set()
        assert dropping.result() == ""


@pytest.mark.concurrent
def test_processes(model, rng):
    seed = rng.randrange(1 << 30)
    context = multiprocessing.get_context("fork")
    with context.Pool(4, torch.set_num_threads, (1,)) as pool:
        jobs = [pool.apply_async(job, (seed + index,))
                for index, job in enumerate((model.slices, model.load) * 4)]
        no_faults(job.get(util.patience(50)) for job in jobs)


class Rows(torch.utils.data.Dataset):
    """A row of the mounted tensor for each index; opened by each worker."""

    def __init__(self, path, count):
        self.path, self.count, self.file = path, count, None

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.file is None:
            self.file = safe_open(self.path, "pt")
        return index, self.file.get_slice("rows")[index].view(torch.uint8)


@pytest.mark.concurrent
def test_data_loader(model):
    """As a training loop reads, with workers that share a mount."""
    count = 1000 // util.SLOW
    rows = model.tensors["rows"].view(torch.uint8)
    loader = torch.utils.data.DataLoader(
        Rows(model.path, count), batch_size=16, shuffle=True, num_workers=2,
        multiprocessing_context="fork", timeout=util.patience(40))
    seen = 0
    for indices, batch in loader:
        assert torch.equal(batch, rows[indices])
        seen += len(indices)
    assert seen == count


# A checkpoint that is overwritten

CHANGED = "w.safetensors"


@pytest.fixture
def changing(ckpt, tmp_path):
    """A function that overwrites the only tensor, 4 MiB of one number."""
    root = tmp_path / "store"

    def change(value, shape=(1024, 1024)):
        save(root / "a", value, shape)

    change(1)
    mount = ckpt(root)
    return mount.path / "a" / "safetensors", change


def header_size(path):
    with open(path, "rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def file_of(value, path):
    """What the file holds, or none of it: the data is one number."""
    with open(path, "rb") as file:
        header = file.read(header_size(path))
    return header + util.tensor_bytes(torch.full((1 << 20,), float(value)))


@pytest.mark.parametrize("name", (MODEL, CHANGED))
def test_overwritten_while_open(changing, name):
    folder, change = changing
    path = folder / name
    before = file_of(1, path)
    inode = os.stat(path).st_ino
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    cached = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(direct, 1 << 20, 4096) == before[4096:4096 + (1 << 20)]
        assert os.pread(cached, 10, 0) == before[:10]
        change(2)
        poll(lambda: util.errno_of(os.stat, path) == 0 and
             os.stat(path).st_ino != inode, SOON, "another inode")
        # The header of old is in memory. The data is an error and never new,
        # whoever looks first.
        data = len(before) - (4 << 20)
        for fd in direct, cached:
            assert os.pread(fd, 4096, 0)[:data] == before[:min(data, 4096)]
            for offset in range(data + 4096 & ~4095, len(before), 1 << 19):
                number = util.errno_of(os.pread, fd, 4096, offset)
                util.same_errno(number, "ESTALE")
    finally:
        os.close(direct)
        os.close(cached)
    tensors = safetensors.torch.load_file(path)
    assert torch.equal(tensors["w"], torch.full((1024, 1024), 2.))


def test_read_while_it_is_overwritten(changing):
    """PyTorch overwrites one file after the other: in between, a checkpoint is
    of both, or lacks a shard, and then the tensor is left out and named. But
    each shard is of the old or of the new, never torn."""
    folder, change = changing
    path = folder / MODEL
    size = header_size(path)
    header = path.read_bytes()[:size]
    shards = {util.tensor_bytes(torch.full((1 << 18,), float(value))): value
              for value in range(1, 6)}
    stop = threading.Event()
    seen = set()

    def read():
        while not stop.is_set():
            try:
                data = path.read_bytes()
            except OSError as error:
                if util.errno.errorcode[error.errno] not in GONE:
                    return str(error)
                continue
            if b"ckptfs.left_out" in data[:4096] and len(data) == 4096:
                continue
            found = [shards.get(data[at:at + (1 << 20)])
                     for at in range(size, len(data), 1 << 20)]
            if data[:size] != header or len(found) != 4 or None in found:
                return "neither old nor new: %s" % found
            if len(set(found)) == 1:
                seen.add(found[0])
        return ""

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(read) for _ in range(3)]
        try:
            for value in range(2, 6):
                stop.wait(0.3)
                change(value)
            poll(lambda: 5 in seen or all(job.done() for job in jobs), SOON,
                 "the last version is read")
        finally:
            stop.set()
        no_faults(job.result() for job in jobs)


MAPPED = """
import sys, safetensors.torch, torch
tensor = safetensors.torch.load_file(sys.argv[1])["w"]
print("mapped", flush=True)
sys.stdin.readline()
print(sorted(set(tensor.flatten().tolist())), flush=True)
"""


def test_overwritten_while_mapped(changing):
    """Who has mapped it sees what was, or dies; never a mixture."""
    folder, change = changing
    path = folder / MODEL
    reader = subprocess.Popen([sys.executable, "-c", MAPPED, path],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True)
    try:
        assert reader.stdout.readline() == "mapped\n"
        inode = os.stat(path).st_ino
        change(2)
        poll(lambda: util.errno_of(os.stat, path) == 0 and
             os.stat(path).st_ino != inode, SOON, "another inode")
        out, _ = reader.communicate("\n", timeout=util.patience(40))
    finally:
        reader.kill()
        reader.wait()
    assert (reader.returncode, out) in ((0, "[1.0]\n"),
                                        (-signal.SIGBUS, ""))


# What cannot be read

def tensors_of(binary, step):
    """What `ckptfs ls` says of each tensor."""
    done = subprocess.run([binary, "ls", "--json", step], capture_output=True,
                          text=True, timeout=patience(60))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines
            if "name" in line and line["dtype"] != "object"]

@pytest.mark.parametrize("harm", ["gone", "short"])
def test_damaged_files_are_not_mapped(ckpt, store, binary, harm):
    """What is in a file that is missing or cut is left out of what clients
    map, and hf/ has nothing rather than a part."""
    step = store("torch-2.14.1/dtensor4", "step")
    data = step / "__3_0.distcp"
    lost = {entry["name"] for entry in tensors_of(binary, step)
            if any(shard["file"] == data.name for shard in entry["shards"])}
    if harm == "gone":
        data.unlink()
    else:
        os.truncate(data, 100)
    mount = ckpt(store.root, expect_log=["ckptfs: warning: ",
                                   "hf/model.safetensors: tensors are missing"])
    here = mount.path / "step"
    with safe_open(here / "safetensors" / "model.safetensors", "pt") as file:
        assert set(json.loads(file.metadata()["ckptfs.left_out"])) >= lost
        assert lost and not lost & set(file.keys())
        for name in file.keys():
            file.get_tensor(name).clone()
    with pytest.raises(OSError) as error:
        open(here / "hf" / "model.safetensors")
    assert error.value.errno == errno.EIO
