"""Checkpoints of safetensors files, against the library's own answers.

What the views show of such a checkpoint is compared with what safetensors
reads from the stored files, or with the tensors that were saved.
"""

import errno
import json
import math
import os
import subprocess

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import util
from stfiles import (INDEX, NAMES, FLOAT6, pack, entry, pattern, write,
                     index_of, check_bytes, check_tensor, code_of,
                     check_slices, check_listing, shards_of, check_stored,
                     random_tensors)

# One file


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


def test_index_is_a_promise(ckpt, binary, tmp_path):
    """What an index names must be there: the commands say that it is not,
    and hf/ has no model that is only half of one."""
    source = tmp_path / "model"
    write(source / "model-00001-of-00002.safetensors",
          {"a": ("U8", [2], b"ab")})
    (source / INDEX).write_text(index_of({
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors"}))

    def run(*args):
        return subprocess.run([binary, *args], capture_output=True, text=True,
                              timeout=util.patience(60))

    for command in "ls", "verify":
        done = run(command, source)
        assert done.returncode == 1
        assert "of the index in no file" in done.stdout or \
            "missing: tensors that the index names" in done.stdout
    summary = json.loads(run("ls", "--json", source).stdout.splitlines()[-1])
    assert summary["summary"]["lost"] == 1
    assert summary["summary"]["state"] == "incomplete"
    done = run("export", source, tmp_path / "out", "--safetensors")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    mount = ckpt(source, expect_log=[
        "ckptfs: warning: ", "hf/model.safetensors: tensors are missing"])
    assert (mount.path / "tensors" / "a").read_bytes() == b"ab"
    with pytest.raises(OSError) as error:
        open(mount.path / "hf" / "model.safetensors")
    assert error.value.errno == errno.EIO


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
