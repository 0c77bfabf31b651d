"""Checkpoints of safetensors files, against the library's own answers.

What the views show of such a checkpoint is compared with what safetensors and
PyTorch read from the stored files, or with the tensors that were saved.
"""

import json
import math
import os
import re
import shutil
import struct
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ranks
import util
from conftest import DATA
from group import Group

FIXTURES = DATA / "fixtures" / "torch-2.14.1"
INDEX = "model.safetensors.index.json"
# safetensors' name of a type -> torch's.
NAMES = {code: name for name, (_, code, _) in util.TYPES.items()}
FLOAT6 = {"F6_E2M3": "float6_e2m3fn", "F6_E3M2": "float6_e3m2fn"}


# Files by hand

def pack(header, data=b"", pad=0):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) + pad) + text + b" " * pad + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def pattern(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


def write(path, tensors, metadata=None, pad=0):
    """tensors: name -> (safetensors' dtype, shape, bytes)"""
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, content) in tensors.items():
        header[name] = entry(dtype, shape, len(data),
                             len(data) + len(content))
        data += content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(header, data, pad))
    return path


def read_header(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + size]), 8 + size, data


def index_of(weight_map):
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})


# What a mount shows

def check_bytes(mount, name, dtype, shape, data):
    """The views of one tensor of whole bytes."""
    torch_name = NAMES[dtype]
    raw = mount / "tensors" / util.encode(name)
    assert raw.read_bytes() == data, name
    assert raw.stat().st_size == len(data)
    npy = mount / "npy" / (util.encode(name) + ".npy")
    util.check_npy(npy.read_bytes(), torch_name, shape, data)
    for path in raw, npy:
        found = util.xattrs(path)
        assert found["user.ckptfs.name"] == name
        assert found["user.ckptfs.dtype"] == dtype
        assert found["user.ckptfs.torch_dtype"] == torch_name
        assert json.loads(found["user.ckptfs.shape"]) == list(shape)


def check_tensor(mount, name, tensor):
    check_bytes(mount, name, code_of(tensor), written_shape(tensor),
                util.tensor_bytes(tensor))


def code_of(tensor):
    return util.TYPES[str(tensor.dtype).split(".")[1]][1]


def written_shape(tensor):
    return list(tensor.shape)


def check_slices(mount, rng, name, dtype, shape, data, count=6):
    size = util.TYPES[NAMES[dtype]][0]
    array = util.as_array(data, shape, size)
    for _ in range(count if shape else 0):
        text, index = util.random_slice(rng, shape)
        want = array[index]
        what = "%s[%s]" % (util.encode(name), text)
        path = mount / "tensors" / what
        assert path.read_bytes() == util.array_bytes(want), what
        file = (mount / "npy" / (what + ".npy")).read_bytes()
        util.check_npy(file, NAMES[dtype], want.shape, util.array_bytes(want))
        assert json.loads(os.getxattr(path, "user.ckptfs.shape")) == \
            list(want.shape), what


def check_listing(mount, names):
    names = {util.encode(name) for name in names}
    assert set(os.listdir(mount / "tensors")) == names
    assert set(os.listdir(mount / "npy")) == {n + ".npy" for n in names}
    entries = json.loads((mount / "tensors.json").read_text())
    assert {e["file"] for e in entries} == names


def shards_of(mount, name):
    path = mount / "tensors" / util.encode(name)
    return json.loads(os.getxattr(path, "user.ckptfs.shards"))


def check_stored(mount, source, rng=None):
    """Every tensor of one file as the library reads it."""
    with safe_open(source, "pt") as stored:
        for name in stored.keys():
            tensor = stored.get_tensor(name)
            check_tensor(mount, name, tensor)
            if rng:
                check_slices(mount, rng, name, code_of(tensor), tensor.shape,
                             util.tensor_bytes(tensor))


# One file

def random_tensors():
    """One of every type that torch and the library have in common."""
    tensors = {}
    for seed, name in enumerate(util.TYPES):
        dtype = getattr(torch, name)
        if name in ("complex128", "complex32", "qint8", "float4_e2m1fn_x2"):
            continue
        for shape in (5, 7), (3, 4, 6), (), (0, 3), (1,):
            size = math.prod(shape) * dtype.itemsize
            data = bytearray(pattern(size, seed))
            if name == "bool":
                data = bytearray(b & 1 for b in data)
            tensors["%s.%s" % (name, "x".join(map(str, shape)))] = \
                torch.frombuffer(data, dtype=torch.uint8).view(
                    dtype).reshape(shape).clone() if size else \
                torch.zeros(shape, dtype=dtype)
    return tensors


def test_every_type(ckpt, tmp_path, rng):
    tensors = random_tensors()
    source = tmp_path / "store"
    source.mkdir()
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    mount = ckpt(source).path
    check_listing(mount, tensors)
    for name, tensor in tensors.items():
        check_tensor(mount, name, tensor)
        check_slices(mount, rng, name, code_of(tensor), tensor.shape,
                     util.tensor_bytes(tensor), 2)
    check_stored(mount, source / "model.safetensors")
    assert (mount / "model.safetensors").read_bytes() == \
        (source / "model.safetensors").read_bytes()


def test_slices_of_the_library(ckpt, tmp_path, rng):
    """get_slice on the stored file, and the slice as a file."""
    tensors = {"w": torch.randn(30, 17, 9), "v": torch.arange(1000)}
    source = tmp_path / "store"
    source.mkdir()
    save_file(tensors, source / "any.safetensors")
    mount = ckpt(source).path
    with safe_open(source / "any.safetensors", "pt") as stored:
        for name, tensor in tensors.items():
            part = stored.get_slice(name)
            for _ in range(30):
                text, index = util.random_slice(rng, tensor.shape)
                want = part[index]
                path = mount / "tensors" / ("%s[%s]" % (name, text))
                assert path.read_bytes() == util.tensor_bytes(want), text


def test_a_large_tensor(ckpt, tmp_path):
    """Borrowed from the mapping, at an offset that is no multiple of 8."""
    data = pattern(5 << 20)
    write(tmp_path / "store" / "m.safetensors",
          {"odd": ("U8", [3], b"abc"), "w": ("F32", [1280, 1024], data)},
          pad=1)
    mount = ckpt(tmp_path / "store").path
    assert (mount / "tensors" / "w").read_bytes() == data
    rows = (mount / "tensors" / "w[100:1100]").read_bytes()
    assert rows == data[100 * 4096:1100 * 4096]
    columns = (mount / "tensors" / "w[:,512:1024]").read_bytes()
    array = np.frombuffer(data, "<f4").reshape(1280, 1024)
    assert columns == util.array_bytes(array[:, 512:])


STRANGE = ["", ".", "..", "a/b", "a%b", "w[0]", "\n", "\0", "é", "😀",
           "n" * 300, "__metadata", "model.layers.0.weight"]


def test_names(ckpt, tmp_path):
    tensors = {name: ("U8", [2], pattern(2, index))
               for index, name in enumerate(STRANGE)}
    write(tmp_path / "store" / "m.safetensors", tensors, {"format": "pt"})
    mount = ckpt(tmp_path / "store").path
    check_listing(mount, tensors)
    for name, (_, _, data) in tensors.items():
        path = mount / "tensors" / util.encode(name)
        assert path.read_bytes() == data
        assert os.getxattr(path, "user.ckptfs.name") == name.encode()


def test_empty_file(ckpt, tmp_path):
    write(tmp_path / "store" / "m.safetensors", {})
    mount = ckpt(tmp_path / "store").path
    check_listing(mount, [])


# Elements that share bytes

def bits_of(data, width):
    """The elements as numbers, each `width` bits, the lowest first."""
    number = int.from_bytes(data, "little")
    return [number >> (i * width) & ((1 << width) - 1)
            for i in range(len(data) * 8 // width)]


def bytes_of(elements, width):
    number = sum(e << (i * width) for i, e in enumerate(elements))
    return number.to_bytes(len(elements) * width // 8, "little")


@pytest.mark.parametrize("dtype, width, shape", [
    ("F4", 4, (6, 8)), ("F4", 4, (3, 4, 2)), ("F6_E2M3", 6, (5, 8)),
    ("F6_E3M2", 6, (3, 2, 12))])
def test_packed_elements(ckpt, tmp_path, rng, dtype, width, shape):
    """Slices that fall on bytes are files, and others are not there."""
    data = pattern(math.prod(shape) * width // 8, 7)
    write(tmp_path / "store" / "m.safetensors", {"w": (dtype, shape, data)})
    mount = ckpt(tmp_path / "store").path
    folder = mount / "tensors"
    assert (folder / "w").read_bytes() == data
    found = util.xattrs(folder / "w")
    assert found["user.ckptfs.dtype"] == dtype
    assert found["user.ckptfs.torch_dtype"] == FLOAT6.get(dtype, NAMES.get(
        dtype))
    assert json.loads(found["user.ckptfs.shape"]) == list(shape)
    header, offset = util.split_npy((mount / "npy" / "w.npy").read_bytes())
    assert header["descr"] == "|V1"
    assert header["shape"] == (*shape[:-1], shape[-1] * width // 8)
    array = np.array(bits_of(data, width)).reshape(shape)
    seen = set()
    for _ in range(60):
        text, index = util.random_slice(rng, shape)
        want = array[index]
        whole = [i.indices(n)[:2] for i, n in
                 zip((*index, *[slice(None)] * (len(shape) - len(index))),
                     shape)]
        fits = all(edge * width % 8 == 0 for edge in whole[-1])
        seen.add(fits)
        path = folder / ("w[%s]" % text)
        if not fits:
            util.same_errno(util.errno_of(os.stat, path), "ENOENT")
            continue
        assert path.read_bytes() == bytes_of(
            [int(e) for e in want.reshape(-1)], width), text
        assert json.loads(os.getxattr(path, "user.ckptfs.shape")) == \
            list(want.shape), text
    assert seen == {True, False}


def test_packed_rows_that_are_no_bytes(ckpt, tmp_path):
    data = pattern(15)
    write(tmp_path / "store" / "m.safetensors",
          {"w": ("F4", [2, 5, 3], data), "none": ("F4", [0, 3], b"")})
    mount = ckpt(tmp_path / "store").path
    assert (mount / "tensors" / "w").read_bytes() == data
    assert (mount / "tensors" / "w[0:2]").read_bytes() == data
    assert (mount / "tensors" / "none").read_bytes() == b""
    assert os.getxattr(mount / "tensors" / "none",
                       "user.ckptfs.shape") == b"[0,3]"
    for part in "w[0]", "w[:,0:2]", "w[:,:,0:2]":
        util.same_errno(util.errno_of(os.stat, mount / "tensors" / part),
                        "ENOENT")


def test_float4_of_torch(ckpt, tmp_path):
    """The library doubles the last axis; torch's tensor counts bytes."""
    tensor = torch.frombuffer(bytearray(pattern(24)), dtype=torch.uint8)
    tensor = tensor.view(torch.float4_e2m1fn_x2).reshape(4, 6)
    source = tmp_path / "store"
    source.mkdir()
    save_file({"w": tensor}, source / "m.safetensors")
    mount = ckpt(source).path
    assert os.getxattr(mount / "tensors" / "w",
                       "user.ckptfs.shape") == b"[4,12]"
    data = tensor.view(torch.uint8).numpy()
    assert (mount / "tensors" / "w").read_bytes() == data.tobytes()
    assert (mount / "tensors" / "w[1:3,4:8]").read_bytes() == \
        data[1:3, 2:4].tobytes()


# Several files

def test_index(ckpt, tmp_path):
    """An index says which tensor of which file counts."""
    source = tmp_path / "store"
    first = write(source / "model-00001-of-00002.safetensors",
                  {"a": ("F32", [2], pattern(8, 1)),
                   "b": ("U8", [3], pattern(3, 2))})
    write(source / "model-00002-of-00002.safetensors",
          {"b": ("U8", [5], pattern(5, 3)), "c": ("I64", [], pattern(8, 4))})
    write(source / "adapter_model.safetensors",
          {"a": ("U8", [1], b"x"), "lora": ("U8", [1], b"y")})
    (source / "broken.safetensors").write_bytes(b"nothing")
    (source / INDEX).write_text(index_of({
        "a": first.name, "b": "model-00002-of-00002.safetensors",
        "c": "model-00002-of-00002.safetensors"}))
    mount = ckpt(source).path
    check_listing(mount, "abc")
    check_bytes(mount, "a", "F32", [2], pattern(8, 1))
    check_bytes(mount, "b", "U8", [5], pattern(5, 3))
    check_bytes(mount, "c", "I64", [], pattern(8, 4))
    assert [s["file"] for s in shards_of(mount, "a")] == [first.name]


def test_index_that_names_what_is_missing(ckpt, tmp_path):
    source = tmp_path / "store"
    write(source / "a.safetensors", {"a": ("U8", [1], b"x")})
    (source / INDEX).write_text(index_of(
        {"a": "a.safetensors", "b": "a.safetensors", "c": "c.safetensors"}))
    mount = ckpt(source)
    check_listing(mount.path, "a")
    mount.wait_log(r"ckptfs: warning: c\.safetensors: named in the index")
    mount.wait_log(r"ckptfs: warning: b: not in a\.safetensors")


def test_without_an_index(ckpt, tmp_path):
    write(tmp_path / "store" / "x" / "b.safetensors",
          {"w": ("U8", [2], b"bb"), "v": ("U8", [1], b"v")})
    write(tmp_path / "store" / "x" / "a.safetensors",
          {"w": ("U8", [3], b"aaa")})
    write(tmp_path / "store" / "y" / "model.safetensors",
          {"m": ("U8", [1], b"m")})
    write(tmp_path / "store" / "y" / "consolidated.safetensors",
          {"n": ("U8", [1], b"n")})
    mount = ckpt(tmp_path / "store").path
    check_listing(mount / "x", "wv")
    check_bytes(mount / "x", "w", "U8", [3], b"aaa")
    check_listing(mount / "y", "m")


def test_model_of_transformers(ckpt, tmp_path, rng):
    """A model in many files with an index, by its own library."""
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=120,
        tie_word_embeddings=True)).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model", max_shard_size="40KB")
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(files) > 3 and (tmp_path / "model" / INDEX).exists()
    mount = ckpt(tmp_path / "model").path
    check_listing(mount, json.loads(
        (tmp_path / "model" / INDEX).read_text())["weight_map"])
    for file in files:
        check_stored(mount, file, rng)


# DCP's sharded safetensors

def assembled(folder):
    """name -> array, from the shards, as torch's reader puts them together."""
    parts = {}
    for path in sorted(folder.glob("*.safetensors")):
        header, start, data = read_header(path)
        info = json.loads(header.pop("__metadata__")["DCP_SHARDING_INFO"])
        for name, value in header.items():
            begin, end = (start + o for o in value["data_offsets"])
            array = util.as_array(data[begin:end], value["shape"],
                                  util.TYPES[NAMES[value["dtype"]]][0])
            parts.setdefault(name, []).append(
                (info[name]["saved_offsets"], array, value["dtype"]))
    whole = {}
    for name, pieces in parts.items():
        shape = [max(o[axis] + a.shape[axis] for o, a, _ in pieces)
                 for axis in range(pieces[0][1].ndim)]
        array = np.zeros(shape, pieces[0][1].dtype)
        for offsets, part, _ in pieces:
            array[tuple(slice(o, o + n)
                        for o, n in zip(offsets, part.shape))] = part
        whole[name] = (pieces[0][2], array)
    return whole


@pytest.mark.parametrize("name, inner", [
    ("hf_rank0", ""), ("hf_rank0_indexed", ""), ("hf_sharded4_indexed", ""),
    ("hf_consolidated", "sharded")])
def test_fixture(ckpt, name, inner, rng):
    mount = ckpt(FIXTURES / name).path
    want = assembled(FIXTURES / name / inner)
    check_listing(mount, want)
    for tensor, (dtype, array) in want.items():
        data = util.array_bytes(array)
        check_bytes(mount, tensor, dtype, array.shape, data)
        check_slices(mount, rng, tensor, dtype, array.shape, data)
        assert all(s["file"].startswith(inner) for s in
                   shards_of(mount, tensor))


def test_consolidated_files_are_not_used(ckpt):
    """torch writes 0.0 for scalars there."""
    folder = FIXTURES / "hf_consolidated"
    wrong = load_file(folder / "model-00001-of-00002.safetensors")["scal"]
    assert wrong.item() == 0
    mount = ckpt(folder)
    scalar = np.frombuffer((mount.path / "tensors" / "scal").read_bytes(),
                           "<f4")
    assert scalar[0] == 1.5
    mount.wait_log("ckptfs: warning: sharded/: its shards are used")
    # Its shards are a checkpoint of their own, too.
    inner = mount.path / "sharded" / "tensors" / "scal"
    assert inner.read_bytes() == scalar.tobytes()


def test_full_files_without_the_shards(ckpt, tmp_path):
    source = tmp_path / "store"
    shutil.copytree(FIXTURES / "hf_consolidated", source,
                    ignore=shutil.ignore_patterns("sharded"))
    mount = ckpt(source).path
    for path in source.glob("*.safetensors"):
        check_stored(mount, path)


def test_lossy_save(ckpt):
    """What the writer dropped is missing, and not made up."""
    folder = FIXTURES / "hf_sharded_lossy_two_shards_per_rank"
    mount = ckpt(folder)
    header, start, data = read_header(
        folder / "shard-00001-model-00001-of-00001.safetensors")
    tensors = mount.path / "tensors"
    assert os.getxattr(tensors / "st", "user.ckptfs.shape") == b"[4,5]"
    util.same_errno(util.errno_of((tensors / "st").read_bytes), "EIO")
    assert (tensors / "st[0:2,3:5]").read_bytes() == data[start:]
    util.same_errno(util.errno_of((tensors / "st[0:2,2:5]").read_bytes),
                    "EIO")
    entries = json.loads((mount.path / "tensors.json").read_text())
    assert entries[0]["holes"]
    mount.wait_log("ckptfs: warning: .*st: shards are missing")


SAVED_ON = 4


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What torch saves on several ranks: folder of all cases."""
    root = tmp_path_factory.mktemp("hf")
    group = Group(SAVED_ON, tmp_path_factory.mktemp("meeting"))
    try:
        for case in ranks.HF_WRITERS:
            group.run("save_hf", case, str(root))
    finally:
        group.stop()
    return root


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", ranks.HF_WRITERS)
def test_saved_on_ranks(ckpt, saved, case, rng):
    mount = ckpt(saved / case).path
    want = ranks.hf_layouts(case)
    check_listing(mount, want)
    for name, tensor in want.items():
        check_tensor(mount, name, tensor)
        check_slices(mount, rng, name, code_of(tensor), tensor.shape,
                     util.tensor_bytes(tensor), 4)
    if case == "blobs":
        assert json.loads((mount / "objects" / "step.json").read_text()) == 12
    files = {s["file"] for name in want for s in shards_of(mount, name)}
    assert len(files) >= SAVED_ON
    assert all(f.startswith("sharded/") for f in files) == \
        (case == "consolidated")


@pytest.mark.timeout(240)
def test_torch_loads_the_shards_through_the_mount(ckpt, saved):
    """The stored files, by torch's reader of this format."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load
    mount = ckpt(saved).path
    want = ranks.hf_layouts("sharded")
    state = {name: torch.zeros_like(t) for name, t in want.items()}
    load(state, storage_reader=HuggingFaceStorageReader(
        str(mount / "sharded")), no_dist=True)
    ranks.compare(state, want)


def test_saved_by_one_process(ckpt, tmp_path):
    """All types, and the mode that makes an index."""
    from torch.distributed.checkpoint import HuggingFaceStorageWriter, save
    tensors = {n: t for n, t in random_tensors().items() if t.numel()}
    source = tmp_path / "store"
    save(tensors, storage_writer=HuggingFaceStorageWriter(
        str(source), fqn_to_index_mapping={
            n: 1 + i % 4 for i, n in enumerate(tensors)}), no_dist=True)
    assert (source / INDEX).exists()
    mount = ckpt(source).path
    check_listing(mount, tensors)
    for name, tensor in tensors.items():
        check_tensor(mount, name, tensor)


def sharding(**info):
    return {"DCP_SHARDING_INFO": json.dumps(info), "format": "pt",
            "DCP_VERSION": "1.0"}


def test_float4_shards(ckpt, tmp_path):
    """Headers count values, the offsets beside them bytes."""
    data = np.frombuffer(pattern(6 * 8), "u1").reshape(6, 8)
    for rank, (rows, columns) in enumerate([((0, 6), (0, 3)),
                                            ((0, 6), (3, 8))]):
        part = data[rows[0]:rows[1], columns[0]:columns[1]]
        write(tmp_path / "store" / ("s%d.safetensors" % rank),
              {"w": ("F4", [6, 2 * (columns[1] - columns[0])],
                     part.tobytes())},
              sharding(w={"saved_offsets": [rows[0], columns[0]]}))
    mount = ckpt(tmp_path / "store").path
    assert (mount / "tensors" / "w").read_bytes() == data.tobytes()
    assert os.getxattr(mount / "tensors" / "w",
                       "user.ckptfs.shape") == b"[6,16]"
    assert (mount / "tensors" / "w[2:4,4:10]").read_bytes() == \
        data[2:4, 2:5].tobytes()


def test_stated_names_and_shapes(ckpt, tmp_path):
    """Several pieces of one tensor in one file; a last one that is lost."""
    array = np.arange(40, dtype="<i4").reshape(8, 5)
    write(tmp_path / "store" / "s.safetensors",
          {"w@0": ("I32", [3, 5], array[:3].tobytes()),
           "w@3": ("I32", [4, 5], array[3:7].tobytes())},
          sharding(**{
              "w@0": {"saved_offsets": [0, 0], "global_shape": [8, 5],
                      "logical_fqn": "w"},
              "w@3": {"saved_offsets": [3, 0], "global_shape": [8, 5],
                      "logical_fqn": "w"}}))
    mount = ckpt(tmp_path / "store")
    check_listing(mount.path, "w")
    folder = mount.path / "tensors"
    assert (folder / "w").stat().st_size == array.nbytes
    assert (folder / "w[1:7]").read_bytes() == array[1:7].tobytes()
    util.same_errno(util.errno_of((folder / "w").read_bytes), "EIO")
    mount.wait_log("ckptfs: warning: w: shards are missing")


# DCP whose items are safetensors

def test_items_of_the_fixture(ckpt):
    source = FIXTURES / "serialization_format_safetensors"
    items = util.items_of(source)
    mount = ckpt(source).path
    blob = (source / "__0_0.distcp").read_bytes()[
        items["w", (0, 0)].offset:]
    size = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + size])
    for name in "wi":
        begin, end = (8 + size + o for o in header[name]["data_offsets"])
        check_bytes(mount, name, header[name]["dtype"], header[name]["shape"],
                    blob[begin:end])


def test_damaged_item(ckpt, store):
    folder = store("torch-2.14.1/serialization_format_safetensors")
    start = util.items_of(folder)["w", (0, 0)].offset
    with open(folder / "__0_0.distcp", "r+b") as file:
        data = file.read()
        file.seek(data.index(b'"F32"', start))
        file.write(b'"F99"')
    mount = ckpt(folder, expect_log=[
        r"ckptfs: error: .*__0_0\.distcp: byte \d+: .*unknown type: F99"])
    for name in "wi":
        path = mount.path / "tensors" / name
        util.same_errno(util.errno_of(path.read_bytes), "EIO")
    assert mount.log().count("F99") == 1


# What is no checkpoint

ONE = {"w": entry("U8", [4], 0, 4)}
TWO = {"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 2, 4)}


def changed(header, name, **members):
    return {**header, name: {**header[name], **members}}


HOSTILE = {
    "empty": (b"", r"byte 0: "),
    "short": (b"\2\0\0\0\0\0\0", r"byte 7: "),
    "zeros": (bytes(4096), r"byte 8: "),
    "huge header": (struct.pack("<Q", 1 << 63) + b"{}", r"byte 0: "),
    "header over the limit": (struct.pack("<Q", 100_000_001) + b"{}",
                              r"byte 0: "),
    "header beyond the end": (struct.pack("<Q", 1000) + b"{}", r"byte 0: "),
    "no object": (pack(b"[]"), r"byte 8: "),
    "no JSON": (pack(b"{\"a\""), r"byte 12: "),
    "a comma too much": (pack(b"{\"__metadata__\":{},}"), r"byte \d+: "),
    "no UTF-8": (pack(b"{\"\xff\":1}"), r"byte 10: not UTF-8"),
    "truncated": (pack(ONE, b"abc"), r"byte \d+: file ends"),
    "trailing": (pack(ONE, b"abcde"), r"byte \d+: bytes behind"),
    "hole": (pack(changed(TWO, "b", data_offsets=[3, 5]), b"abcde"),
             r"byte \d+: .*: b$"),
    "overlap": (pack(changed(TWO, "b", data_offsets=[1, 3]), b"abc"),
                r"byte \d+: .*overlaps.*: b$"),
    "shared": (pack(changed(TWO, "b", data_offsets=[0, 2]), b"ab"),
               r"byte \d+: .*overlaps"),
    "wrong size": (pack(changed(ONE, "w", shape=[5]), b"abcd"),
                   r"byte \d+: .*differ: w$"),
    "half a byte": (pack(changed(ONE, "w", shape=[7], dtype="F4"), b"abcd"),
                    r"byte \d+: .*inside of a byte: w$"),
    "overflow": (pack(changed(ONE, "w", shape=[1 << 33, 1 << 33]), b"abcd"),
                 r"byte \d+: .*too large: w$"),
    "negative": (pack(changed(ONE, "w", shape=[-4]), b"abcd"),
                 r"byte \d+: .*size of a tensor: w$"),
    "unknown type": (pack(changed(ONE, "w", dtype="F33"), b"abcd"),
                     r"byte \d+: .*unknown type: F33$"),
    "axes": (pack(changed(ONE, "w", shape=[1] * 32 + [4]), b"abcd"),
             r"byte \d+: .*32 axes: w$"),
    "two of a name": (pack(b'{"w":{"dtype":"U8","shape":[2],'
                           b'"data_offsets":[0,2]},"w":{"dtype":"U8",'
                           b'"shape":[2],"data_offsets":[2,4]}}', b"abcd"),
                      r"byte \d+: two tensors of one name: w$"),
    "a key twice": (pack(b'{"w":{"dtype":"U8","dtype":"U8","shape":[4],'
                         b'"data_offsets":[0,4]}}', b"abcd"),
                    r"byte \d+: .*twice: w$"),
    "metadata": (pack({"__metadata__": {"a": 1}, **ONE}, b"abcd"),
                 r"byte \d+: __metadata__"),
    "sharding": (pack({"__metadata__": sharding(w={"saved_offsets": [0, 0]}),
                       **ONE}, b"abcd"), r"byte \d+: .*axes: w$"),
    "deep": (pack(b'{"w":{"x":' + b"[" * 100 + b"]" * 100 + b"}}"),
             r"byte \d+: "),
    "long list": (pack(b'{"w":{"x":[' + b"0," * (1 << 20) + b"0]}}"),
                  r"byte \d+: .*too large"),
}


def test_hostile_files(ckpt, tmp_path, rng):
    """Refused with file and byte; the folder shows its files, and no views;
    and what stands beside them is not harmed."""
    store = tmp_path / "store"
    for name, (data, _) in HOSTILE.items():
        (store / name).mkdir(parents=True)
        (store / name / "model.safetensors").write_bytes(data)
    good = write(store / "zzz" / "good.safetensors",
                 {"w": ("F32", [3, 4], pattern(48))})
    mount = ckpt(store, expect_log=[
        r"ckptfs: error: %s/model\.safetensors: %s" % (re.escape(name), line)
        for name, (_, line) in HOSTILE.items()])
    for _ in range(2):
        for name, (data, _) in HOSTILE.items():
            assert os.listdir(mount.path / name) == ["model.safetensors"]
            assert (mount.path / name / "model.safetensors").read_bytes() == \
                data
            assert not os.path.lexists(mount.path / name / "tensors")
        check_bytes(mount.path / "zzz", "w", "F32", [3, 4], pattern(48))
        check_stored(mount.path / "zzz", good, rng)
        time.sleep(1.1)
    assert mount.log().count("ckptfs: error:") == len(HOSTILE)


HOSTILE_INDICES = {
    "no JSON": "{", "no map": "{}", "list": '{"weight_map":[]}',
    "number": '{"weight_map":{"w":1}}',
    "absolute": '{"weight_map":{"w":"/etc/passwd"}}',
    "above": '{"weight_map":{"w":"../good/m.safetensors"}}',
    "twice": '{"weight_map":{"w":"a","w":"a"}}',
    "control": '{"weight_map":{"w":"a\\u0000b"}}',
}


def test_hostile_indices(ckpt, tmp_path):
    store = tmp_path / "store"
    write(store / "good" / "m.safetensors", {"w": ("U8", [2], b"ab")})
    for name, text in HOSTILE_INDICES.items():
        write(store / name / "m.safetensors", {"w": ("U8", [2], b"ab")})
        (store / name / INDEX).write_text(text)
    mount = ckpt(store, expect_log=[
        r"ckptfs: error: %s/%s: byte \d+: " % (name, re.escape(INDEX))
        for name in HOSTILE_INDICES])
    for name in HOSTILE_INDICES:
        assert set(os.listdir(mount.path / name)) == {"m.safetensors", INDEX}
        assert not os.path.lexists(mount.path / name / "tensors")
    check_bytes(mount.path / "good", "w", "U8", [2], b"ab")


# What changes

def wait_for(condition, what):
    deadline = time.monotonic() + 15 * util.SLOW
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_file_that_is_being_written(ckpt, tmp_path):
    """No view before it is whole."""
    source = tmp_path / "store"
    source.mkdir()
    path = source / "model.safetensors"
    data = pack({"w": entry("U8", [100000], 0, 100000)}, pattern(100000))
    path.write_bytes(data[:5000])
    mount = ckpt(source, expect_log=[
        r"ckptfs: error: model\.safetensors: byte 5000: file ends"])
    assert os.listdir(mount.path) == ["model.safetensors"]
    with open(path, "ab") as file:
        file.write(data[5000:])
    wait_for(lambda: os.path.exists(mount.path / "tensors" / "w"),
             "the views of a whole file")
    assert (mount.path / "tensors" / "w").read_bytes() == pattern(100000)


def test_a_file_that_is_replaced(ckpt, tmp_path):
    source = tmp_path / "store"
    path = write(source / "model.safetensors", {"w": ("U8", [5000],
                                                      pattern(5000, 1))})
    mount = ckpt(source).path
    name = mount / "tensors" / "w"
    with open(name, "rb", buffering=0) as old:
        assert old.read() == pattern(5000, 1)
        other = write(source / "other", {"w": ("U8", [6000],
                                               pattern(6000, 2))})
        os.rename(other, path)
        wait_for(lambda: name.stat().st_size == 6000, "the new file")
        assert name.read_bytes() == pattern(6000, 2)
        util.same_errno(util.errno_of(os.pread, old.fileno(), 10, 0),
                        "ESTALE")


def test_shards_that_come_and_go(ckpt, tmp_path):
    source = tmp_path / "store"
    array = np.arange(10, dtype="u1")

    def shard(index, begin, end):
        return write(source / ("s%d.safetensors" % index),
                     {"w": ("U8", [end - begin], array[begin:end].tobytes())},
                     sharding(w={"saved_offsets": [begin]}))

    shard(0, 0, 4)
    mount = ckpt(source)
    name = mount.path / "tensors" / "w"
    assert name.read_bytes() == bytes(range(4))
    last = shard(1, 4, 10)
    wait_for(lambda: name.stat().st_size == 10, "the second shard")
    assert name.read_bytes() == bytes(range(10))
    last.unlink()
    wait_for(lambda: name.stat().st_size == 4, "one shard less")
    (source / ".metadata").write_bytes(b"x")
    mount.expect_log.append(r"ckptfs: error: \.metadata: byte 0")
    wait_for(lambda: not os.path.exists(name), "another marker")


def test_links_that_lead_away(ckpt, tmp_path):
    """Nothing outside is opened, but for the links of the next test."""
    write(tmp_path / "blobs" / "abc", {"w": ("U8", [2], b"ab")})
    source = tmp_path / "snapshot"
    source.mkdir()
    (source / "model.safetensors").symlink_to("../blobs/abc")
    mount = ckpt(source, expect_log=[
        r"ckptfs: error: model\.safetensors: byte 0: link that leads out"])
    assert not os.path.lexists(mount.path / "tensors")


def test_snapshot_of_a_cache(ckpt, tmp_path):
    """Hugging Face's cache has links to ../../blobs/HASH."""
    model = tmp_path / "models--x"
    write(model / "blobs" / ("0a" * 32), {"w": ("U8", [2], b"ab")})
    (model / "blobs" / ("17" * 20)).write_text('{"model_type": "x"}')
    source = model / "snapshots" / ("3f" * 20)
    source.mkdir(parents=True)
    (source / "model.safetensors").symlink_to("../../blobs/" + "0a" * 32)
    (source / "config.json").symlink_to("../../blobs/" + "17" * 20)
    mount = ckpt(source, options="hf_assets=%s" % source)
    assert (mount.path / "tensors" / "w").read_bytes() == b"ab"
    assert load_file(mount.path / "hf" / "model.safetensors")["w"].tolist() \
        == [97, 98]
    assert json.loads((mount.path / "hf" / "config.json").read_text()) == {
        "model_type": "x"}


# Many tensors

def test_many_tensors(ckpt, tmp_path):
    count = 20000
    data = np.arange(count, dtype="<u4")
    header = {"layers.%05d.w" % i: entry("U32", [1], 4 * i, 4 * i + 4)
              for i in range(count)}
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "m.safetensors").write_bytes(
        pack(header, data.tobytes()))
    mount = ckpt(tmp_path / "store").path
    listed = os.listdir(mount / "tensors")
    assert len(listed) == count and set(listed) == set(header)
    for i in range(0, count, 997):
        path = mount / "tensors" / ("layers.%05d.w" % i)
        assert path.read_bytes() == data[i].tobytes()
    util.same_errno(util.errno_of(os.stat, mount / "tensors" / "layers"),
                    "ENOENT")
