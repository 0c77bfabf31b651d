# SPDX-License-Identifier: Apache-2.0
"""The view f32/: bit for bit what torch's .float() makes of a tensor.

NaN stays NaN; its payload and its sign may change.
"""

import concurrent.futures
import errno
import os
import random

import numpy as np
import pytest
import torch

import util

HALVES = (torch.bfloat16, torch.float16)
BYTES = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
         torch.float8_e5m2fnuz, torch.float8_e8m0fnu)
NEITHER = (torch.int64, torch.uint8, torch.bool, torch.complex64,
           torch.uint16)


def name_of(dtype):
    return str(dtype).split(".")[1]


def patterns():
    """name -> (tensor of every bit pattern, how it is cut)."""
    made = {}
    for dtype in HALVES:
        bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16)
        made[name_of(dtype)] = (bits.view(dtype).reshape(256, 256), (3, 2))
    for dtype in BYTES:
        bits = torch.arange(256, dtype=torch.int32).to(torch.uint8)
        made[name_of(dtype)] = (bits.view(dtype).reshape(8, 32), (2, 3))
    bits = torch.randint(-2 ** 31, 2 ** 31, (70, 90), dtype=torch.int32,
                         generator=torch.Generator().manual_seed(5))
    made["float32"] = (bits.view(torch.float32), (4, 2))
    return made


def more():
    """Large and small ones, and those of which there is no such file."""
    generator = torch.Generator().manual_seed(6)
    made = {
        "large": (torch.randn(1500, 1400, generator=generator).bfloat16(),
                  (5, 3)),
        "bytes": (torch.randint(0, 256, (1 << 22,), generator=generator)
                  .to(torch.uint8).view(torch.float8_e5m2), (7,)),
        "scalar": (torch.tensor(-1.5).half(), ()),
        "empty": (torch.zeros(0, 3).bfloat16(), (1, 1)),
        "float64": (torch.randn(4, generator=generator).double(), (2,)),
    }
    for dtype in NEITHER:
        made[name_of(dtype)] = (torch.ones(4).to(dtype), (2,))
    return made


@pytest.fixture(scope="module")
def tensors():
    return {**patterns(), **more()}


@pytest.fixture
def step(ckpt, tensors, tmp_path):
    folder = tmp_path / "store"
    util.save_chunks(folder, {
        name: (tensor, util.grid(tensor.shape, cuts)
               if tensor.numel() else [((0, 0), (0, 3))])
        for name, (tensor, cuts) in tensors.items()}, files=3)
    return ckpt(folder).path


def check(data, tensor):
    """@data is a .npy file of what .float() makes of @tensor."""
    header, offset = util.split_npy(data)
    assert header == {"descr": "<f4", "fortran_order": False,
                      "shape": tuple(tensor.shape)}
    want = tensor.float().contiguous()
    found = np.frombuffer(data[offset:], "<u4").reshape(want.shape)
    bits = want.view(torch.int32).numpy().view(np.uint32)
    nan = torch.isnan(want).numpy()
    assert (np.isnan(found.view(np.float32)) == nan).all()
    wrong = np.argwhere((found != bits) & ~nan)
    assert len(wrong) == 0, [
        (tuple(i), hex(found[tuple(i)]), hex(bits[tuple(i)]))
        for i in wrong[:5]]


@pytest.mark.parametrize("name", patterns())
def test_every_pattern(step, tensors, name):
    check((step / "f32" / (name + ".npy")).read_bytes(), tensors[name][0])


def test_float32_as_it_is(step, tensors):
    """With the payload of each NaN."""
    tensor = tensors["float32"][0]
    assert torch.isnan(tensor).any()
    data = (step / "f32" / "float32.npy").read_bytes()
    assert data == (step / "npy" / "float32.npy").read_bytes()
    util.check_npy(data, "float32", tensor.shape, util.tensor_bytes(tensor))


@pytest.mark.parametrize("name", ["large", "bytes", "scalar", "empty"])
def test_whole(step, tensors, name):
    path = step / "f32" / (name + ".npy")
    tensor = tensors[name][0]
    assert path.stat().st_size == util.split_npy(
        path.read_bytes())[1] + 4 * tensor.numel()
    check(path.read_bytes(), tensor)
    array = np.load(path, mmap_mode=None if tensor.numel() == 0 else "r")
    assert array.dtype == np.float32 and array.shape == tensor.shape
    assert np.array_equal(array, tensor.float().numpy(), equal_nan=True)


@pytest.mark.parametrize("name", [*patterns(), "large", "bytes"])
def test_slices(step, tensors, rng, name):
    tensor = tensors[name][0]
    for _ in range(25):
        text, where = util.random_slice(rng, tensor.shape)
        path = step / "f32" / ("%s[%s].npy" % (name, text))
        check(path.read_bytes(), tensor[where])


@pytest.mark.parametrize("name", ["large", "bytes", "float16"])
def test_any_offset_and_size(step, tensors, rng, name):
    """Reads that begin and end inside of elements."""
    path = step / "f32" / (name + ".npy")
    whole = path.read_bytes()
    check(whole, tensors[name][0])
    fd = os.open(path, os.O_RDONLY)
    try:
        for _ in range(60):
            offset = rng.randrange(len(whole))
            size = rng.choice((1, 3, 7, 4096, 1 << 17, 3 << 20))
            assert os.pread(fd, size, offset) == whole[offset:offset + size]
    finally:
        os.close(fd)


def test_what_has_no_such_file(step, tensors):
    names = set(os.listdir(step / "f32"))
    assert names == {name + ".npy" for name in [*patterns(), "large", "bytes",
                                                "scalar", "empty"]}
    for dtype in NEITHER:
        for path in "%s.npy", "%s[0:2].npy":
            path = step / "f32" / (path % name_of(dtype))
            assert util.errno_of(os.stat, path) == errno.ENOENT, path


def test_float64_would_be_rounded(step):
    """It is there, and says why it cannot be opened."""
    for name in "float64.npy", "float64[0:2].npy":
        path = step / "f32" / name
        assert util.errno_of(os.open, path,
                             os.O_RDONLY) == errno.EOPNOTSUPP, name


def test_holes(ckpt, tmp_path):
    """What is there can be read; what is missing is no zero."""
    tensor = torch.arange(64 * 64.).reshape(64, 64).bfloat16()
    util.save_chunks(tmp_path / "store", {
        "torn": (tensor, [((0, 0), (24, 64)), ((40, 0), (24, 64))])})
    folder = ckpt(tmp_path / "store").path / "f32"
    check((folder / "torn[0:24].npy").read_bytes(), tensor[:24])
    check((folder / "torn[40:,3:9].npy").read_bytes(), tensor[40:, 3:9])
    for name in "torn", "torn[20:30]", "torn[:,5]":
        path = folder / (name + ".npy")
        assert util.errno_of(path.read_bytes) == errno.EIO, name


@pytest.mark.concurrent
def test_threads(step, tensors, rng):
    """Each converts in memory of its own."""
    seed = rng.randrange(1 << 30)
    wanted = {name: tensors[name][0] for name in (
        "large", "bytes", "float16", "bfloat16")}

    def read(number):
        mine = random.Random(number)
        for _ in range(25 // util.SLOW + 3):
            name = mine.choice(sorted(wanted))
            text, where = util.random_slice(mine, wanted[name].shape)
            path = step / "f32" / ("%s[%s].npy" % (name, text))
            check(path.read_bytes(), wanted[name][where])
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(seed, seed + 8)))
