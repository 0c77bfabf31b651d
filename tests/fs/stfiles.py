"""Safetensors files made by hand, and what a mount must show of them."""

import json
import math
import os
import struct

import numpy as np
import torch
from safetensors import safe_open

import util
from conftest import DATA

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


def sharding(**info):
    return {"DCP_SHARDING_INFO": json.dumps(info), "format": "pt",
            "DCP_VERSION": "1.0"}
