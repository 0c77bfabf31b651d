"""Items behind stream extensions, on real mounts.

The oracle is what went in: torch's tensors, or the arrays that the tests' own
writer was given.
"""

import concurrent.futures
import errno
import json
import os
import random
import re
import warnings

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
import zstandard
from torch.distributed.checkpoint._extension import ZStandard

import mounting
import util
from dcp import (DTYPES, Blob, Checkpoint, extensions as ext, object_item,
                 random_array)
from dcp.boxes import grid, tiling
from dcp.hostile import chains
from dcp.store import Store
from dcp.views import (check_tensor, encode, read, read_errno, wait_errors,
                       xattr)

ONCE, TWICE = (ext.ZSTD,), (ext.ZSTD, ext.ZSTD)
FRAMES = {ext.ZSTD: ext.zstd_frames}


@pytest.fixture
def many(tmp_path):
    return Store(tmp_path / "store")


def decoded_items(source):
    """(name, offset) -> the item, by Python's zstandard."""
    out = {}
    for key, info in util.items_of(source).items():
        data = util.item_bytes(source, info)
        for name in reversed(info.transform_descriptors):
            assert name == ext.ZSTD
            data = zstandard.ZstdDecompressor().decompressobj() \
                .decompress(data)
        out[key] = data
    return out


def error_of(name, words=r"\S"):
    return rf"error: (.*[ /])?{re.escape(name)}: .*byte \d+: {words}"


# -- what torch writes


def test_fixture_of_torch(ckpt, fixtures_dir):
    """As torch 2.14 wrote it: a transposed tensor and a conjugated one too."""
    source = fixtures_dir / "torch-2.14.1" / "zstd"
    mount = ckpt(source).path
    items = decoded_items(source)
    assert {name for name, _ in items} == \
        {"w", "i", "wt", "cj", "neg", "step"}
    for (name, offset), item in items.items():
        value = util.load_object(item)
        if offset is None:
            path = mount / "objects" / name
            assert json.loads(read(f"{path}.json")) == value
            assert read(f"{path}.pt") == item
            assert os.stat(f"{path}.pt").st_size == len(item)
            continue
        want = value.resolve_conj().resolve_neg().clone(
            memory_format=torch.contiguous_format)
        assert read(mount / "tensors" / name) == util.tensor_bytes(want)
        array = np.load(mount / "npy" / f"{name}.npy")
        assert array.shape == tuple(want.shape)
        assert array.tobytes() == util.tensor_bytes(want)


def test_unknown_extension_of_torch(ckpt, store):
    """Its tensor is refused by name; neighbours and sizes are there."""
    folder = store("torch-2.14.1/ext_chain_inc_zstd", "odd")
    store("torch-2.6.0/dtensor4", "good")
    mount = ckpt(store.root,
                 expect_log=[error_of("w", r".*extension: stream\.inc/1$")])
    path = mount.path / "odd" / "tensors" / "w"
    assert path.stat().st_size == 24
    assert xattr(path, "shape") == "[6]"
    for _ in range(2):
        assert read_errno(path) == errno.EOPNOTSUPP
        assert read_errno(mount.path / "odd/npy/w.npy") == errno.EOPNOTSUPP
    for tensor in os.listdir(mount.path / "good" / "tensors"):
        assert read(mount.path / "good" / "tensors" / tensor)
    assert len(wait_errors(mount, error_of("w"), 1)) == 1
    # The stored file is there as ever.
    assert read(mount.path / "odd" / "__0_0.distcp") == \
        read(folder / "__0_0.distcp")


def save_with_torch(folder, state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, no_dist=True, storage_writer=dcp.FileSystemWriter(
            folder, _extensions=[ZStandard()]))


def test_saved_by_torch(ckpt, tmp_path, rng):
    generator = torch.Generator().manual_seed(rng.randrange(1 << 32))
    big = torch.randn(700, 900, generator=generator)
    state = {"model": {"big": big, "turned": big.t(), "zeros":
                       torch.zeros(3000, 400), "scalar": torch.tensor(2.5),
                       "empty": torch.zeros(0, 4), "half": big.bfloat16(),
                       "bytes": (big * 9).to(torch.int8)},
             "lr": 0.25, "betas": [0.9, {"a": None}]}
    save_with_torch(tmp_path / "step", state)
    info = util.items_of(tmp_path / "step")
    assert all(i.transform_descriptors == [ext.ZSTD] for i in info.values())
    mount = ckpt(tmp_path / "step").path
    for name, tensor in state["model"].items():
        want = util.tensor_bytes(tensor.contiguous())
        path = mount / "tensors" / f"model.{name}"
        assert read(path) == want, name
        if tensor.ndim == 2 and len(tensor):
            part = tensor[1:, 2:3].contiguous()
            assert read(f"{path}[1:,2]") == util.tensor_bytes(part), name
    assert json.loads(read(mount / "objects" / "lr.json")) == 0.25
    for name, item in decoded_items(tmp_path / "step").items():
        if name[1] is None:
            assert read(mount / "objects" / f"{name[0]}.pt") == item
    mapped = np.load(mount / "npy" / "model.big.npy", mmap_mode="r")
    assert np.array_equal(mapped, big.numpy())


# -- what others might


def test_chains_of_all_sorts(many, ckpt):
    """One checkpoint whose shards are stored differently, side by side."""
    for local in (False, True):
        ck = many.add(f"local-{local}", rank_local=local)
        many.tensor(ck, "once", "float32", (40, 6), grid((40, 6), (4, 2)),
                    chain=ONCE)
        many.tensor(ck, "twice", "int64", (30, 5), grid((30, 5), (3, 1)),
                    chain=TWICE)
        many.tensor(ck, "deep", "bfloat16", (9, 9), chain=(ext.ZSTD,) * 8)
        many.tensor(ck, "frames", "float64", (400, 30),
                    grid((400, 30), (2, 1)), chain=TWICE, coders=FRAMES)
        many.tensor(ck, "plain", "float32", (50, 6), grid((50, 6), (4, 1)))
        many.tensor(ck, "mixed", "float32", (60, 40), tiling(
            (60, 40), many.rng, 12), chain=ONCE)
        for entry in ck.entries[-12::2]:
            entry.chain = ()
        ck.object("lr", 0.1, chain=TWICE)
        ck.object("plain.o", {"a": 1})
    mount = many.mount(ckpt)
    many.check(mount, slices=8)
    for name, ck in many.checkpoints.items():
        folder = mount.path / name / "objects"
        for entry in ck.entries:
            if entry.offset is None:
                path = folder / encode(entry.name)
                assert read(f"{path}.pt") == bytes(entry.blob)
        assert json.loads(read(folder / "lr.json")) == 0.1
        assert json.loads(read(folder / "plain.o.json")) == {"a": 1}


def test_minor_versions_do_not_matter(many, ckpt):
    ck = many.add("step")
    many.tensor(ck, "w", "float32", (4, 3), chain=("stream.zstd/1.5",),
                coders={"stream.zstd/1.5": ext.zstd})
    many.check(many.mount(ckpt))


UNKNOWN = {
    "inc": (ext.INC,), "rot13": (ext.ROT13,), "outer": (ext.ZSTD, ext.INC),
    "inner": (ext.INC, ext.ZSTD), "version": ("stream.zstd/2",),
    "local": ("stream.zstd@mine/1",), "bare": ("stream.zstd",),
    "space": ("a b\u00e9",), "empty": ("",),
}


def test_unknown_extensions_are_named(many, ckpt):
    ck = many.add("step")
    good = many.tensor(ck, "good", "float32", (4, 3), chain=ONCE)
    patterns = {}
    for name, chain in UNKNOWN.items():
        coders = {c: ext.CODERS.get(c, ext.zstd) for c in chain}
        ck.tensor(name, "float32", good, chain=chain, coders=coders)
        named = next(c for c in chain if c != ext.ZSTD)
        # What is not ASCII is shown byte by byte.
        shown = ": " + re.sub("[^ -~]", "??", named) if named else ""
        patterns[name] = error_of(
            name, ".*unknown stream extension" + re.escape(shown) + "$")
    mount = many.mount(ckpt, expect_log=list(patterns.values()))
    folder = mount.path / "step" / "tensors"
    for name, pattern in patterns.items():
        for _ in range(3):
            assert read_errno(folder / name) == errno.EOPNOTSUPP, name
        assert os.stat(folder / name).st_size == 48
        assert len(wait_errors(mount, pattern, 1)) == 1, name
    check_tensor(mount.path / "step", "good", "float32", good, many.rng)


# -- what is damaged


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]


def damaged():
    """name -> what makes stored bytes of an item, and the words for it."""
    def whole(data):
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)

    return {
        "cut": (lambda d: whole(d)[:-1], "ends inside a zstd frame"),
        "cut_frames": (lambda d: whole(d) + whole(d)[:20],
                       "ends inside a zstd frame"),
        "garbage": (lambda d: whole(d) + b"garbage", "not a zstd frame"),
        "plain": (bytes, "not a zstd frame"),
        "empty": (lambda d: b"", "too short for an archive"),
        "empty_frame": (lambda d: ext.zstd(b""), "too short for an archive"),
        "checksum": (lambda d: flipped(whole(d), -1), "damaged zstd frame"),
        "twice": (lambda d: whole(whole(d)), "no end record"),
        "other": (lambda d: whole(bytes(object_item(7))), "of the decoded"),
        "dictionary": (lambda d: bytes([0x28, 0xb5, 0x2f, 0xfd, 1, 0, 0x77,
                                        1, 0, 0]), "kind that is not read"),
        "window": (lambda d: bytes([0x28, 0xb5, 0x2f, 0xfd, 0, 18 << 3, 1, 0,
                                    0]), "kind that is not read"),
    }


def test_damage_is_said_once_and_harms_nobody(many, ckpt):
    ck = many.add("step")
    good = many.tensor(ck, "good", "float32", (4, 3), chain=ONCE)
    patterns = {}
    for name, (make, words) in damaged().items():
        ck.tensor(name, "float32", good, chain=ONCE, coders={ext.ZSTD: make})
        ck.object("o." + name, [1], chain=ONCE)
        ck.entries[-1].coders = {ext.ZSTD: make}
        patterns[name] = error_of(name, ".*" + re.escape(words))
    mount = many.mount(ckpt, expect_log=list(patterns.values()))
    folder = mount.path / "step"
    for name, pattern in patterns.items():
        refused = name in ("dictionary", "window", "other")
        for _ in range(2):
            got = read_errno(folder / "tensors" / name)
            assert got in (errno.EIO, errno.EOPNOTSUPP)
            assert got == errno.EIO or refused, name
        assert len(wait_errors(mount, pattern, 1)) == 1, name
        if name != "other":
            assert not os.path.exists(folder / f"objects/o.{name}.json")
    check_tensor(folder, "good", "float32", good, many.rng)


def test_metadata_that_makes_no_chain(ckpt, tmp_path):
    """A list of something else is refused with the checkpoint."""
    root = tmp_path / "store"
    for name, value in chains().items():
        ck = Checkpoint(root / name)
        ck.tensor("w", "float32", np.zeros(3, "<f4"))
        ck.entries[0].extra = {"transform_descriptors": value}
        ck.write()
    good = Checkpoint(root / "good", chain=ONCE)
    array = good.tensor("w", "float32", np.arange(3, dtype="<f4"))
    good.write()
    mount = ckpt(root, expect_log=[rf"error: .*{n}.*stream extensions"
                                   for n in chains()])
    for name in chains():
        assert not os.path.lexists(mount.path / name / "tensors"), name
        assert read(mount.path / name / "__0_0.distcp")
    assert read(mount.path / "good" / "tensors" / "w") == array.tobytes()


# -- room


def kept_kib(mount):
    """What the daemon's decoded items take."""
    total = 0
    for entry in os.scandir(f"/proc/{mount.pid}/fd"):
        try:
            if "memfd:ckptfs decoded" in os.readlink(entry.path):
                total += os.stat(entry.path).st_size
        except FileNotFoundError:
            pass
    return total // 1024


def test_larger_than_the_cache(many, ckpt):
    """Refused by name; whatever fits is read, however often it changes."""
    ck = many.add("step")
    big = random_array(DTYPES["float32"], (300, 1024), many.rng)
    ck.tensor("big", "float32", big, chain=ONCE)
    for number in range(8):
        many.tensor(ck, f"w{number}", "float32", (150, 1024), chain=ONCE)
    ck.object("o", "x" * (1 << 21), chain=ONCE)
    mount = many.mount(ckpt, options="decoded_cache=1M", expect_log=[
        error_of("big", ".*larger than the cache")])
    folder = mount.path / "step"
    for _ in range(3):
        assert read_errno(folder / "tensors" / "big") == errno.EOPNOTSUPP
        assert read_errno(folder / "tensors" / "big[7]") == errno.EOPNOTSUPP
        for _, name, _, array in many.tensors:
            assert read(folder / "tensors" / f"{name}[3:5]") == \
                array[3:5].tobytes()
            assert kept_kib(mount) <= 1024
    assert not os.path.exists(folder / "objects" / "o.json")
    assert len(wait_errors(mount, error_of("big"), 1)) == 1


def test_bombs(ckpt, tmp_path):
    """Gigabytes in kilobytes: no more memory than the cache, and no hang."""
    def zeros(size):
        coder = zstandard.ZstdCompressor(level=1).compressobj()
        part = bytes(1 << 24)
        return b"".join([coder.compress(part) for _ in range(size >> 24)] +
                        [coder.flush()])

    ck = Checkpoint(tmp_path / "step")
    bombs = {"once": zeros(4 << 30), "skipped": ext.zstd(ext.skippable(1) *
             (8 << 20))}
    bombs["twice"] = ext.zstd(bombs["once"])
    for name, data in bombs.items():
        ck.tensor(name, "float32", np.zeros((), "<f4"), shape=(1 << 20,),
                  boxes=[((0,), (1 << 20,))], items=[Blob(b"x")],
                  chain=TWICE if name != "once" else ONCE,
                  coders={ext.ZSTD: lambda d, data=data: data})
    assert sum(map(len, bombs.values())) < 1 << 20
    ck.write()
    mount = ckpt(tmp_path / "step", options="decoded_cache=32M",
                 expect_log=[error_of(name) for name in bombs])
    for name in bombs:
        assert read_errno(mount.path / "tensors" / name) in \
            (errno.EOPNOTSUPP, errno.EIO), name
        assert kept_kib(mount) == 0
    if not mounting.SANITIZER:
        with open(f"/proc/{mount.pid}/status") as file:
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1])
        assert peak < 128 * 1024


@pytest.mark.concurrent
@pytest.mark.parametrize("cache", ("1M", "3M", "1G"))
def test_concurrent_readers(many, ckpt, cache):
    """Items of 600 KiB are decoded, evicted and decoded again."""
    ck = many.add("step")
    names = [f"w{number}" for number in range(6)]
    arrays = {name: many.tensor(
        ck, name, "float32", (600, 512), grid((600, 512), (2, 1)),
        chain=TWICE if name == "w3" else ONCE) for name in names}
    mount = many.mount(ckpt, options=f"decoded_cache={cache}")
    folder = mount.path / "step" / "tensors"
    seed = random.randrange(1 << 30)
    print("seed", seed)

    def run(number):
        rng = random.Random(seed + number)
        for _ in range(30 // mounting.SLOW + 3):
            name = rng.choice(names)
            begin = rng.randrange(600)
            end = rng.randrange(begin, 601)
            got = read(folder / f"{name}[{begin}:{end},3:500]")
            if got != arrays[name][begin:end, 3:500].tobytes():
                return f"{name}[{begin}:{end}], seed {seed + number}"
        return ""

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert [r for r in pool.map(run, range(8)) if r] == []
    assert kept_kib(mount) <= {"1M": 1024, "3M": 3072}.get(cache, 1 << 20)


# -- change


def test_an_overwritten_file_is_noticed(many, ckpt):
    ck = many.add("step")
    old = many.tensor(ck, "w", "float32", (64, 64), chain=ONCE)
    mount = many.mount(ckpt)
    path = mount.path / "step" / "tensors" / "w"
    handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    assert os.pread(handle, 4096, 0) == old.tobytes()[:4096]
    new = Checkpoint(ck.folder, chain=ONCE)
    array = new.tensor("w", "float32", old + 1)
    new.write()

    def stale():
        try:
            got = os.pread(handle, 4096, 4096)
        except OSError as error:
            util.same_errno(error.errno, "ESTALE", "EIO")
            return True
        assert got == old.tobytes()[4096:8192]
        return False

    mounting.poll(stale, 10, "the open file is stale")
    os.close(handle)
    mounting.poll(lambda: read_errno(path) == 0, 10, "the new one is there")
    assert read(path) == array.tobytes()
    assert kept_kib(mount) * 1024 < 2 * (array.nbytes + 4096)
