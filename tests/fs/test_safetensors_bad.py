"""Safetensors files that are none, or that change."""

import json
import os
import re
import struct
import time

import numpy as np
from safetensors.torch import load_file

import util
from mounting import poll
from stfiles import (INDEX, pack, entry, pattern, write, check_bytes,
                     check_stored, sharding)

SOON = 15               # seconds


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
    poll(lambda: os.path.exists(mount.path / "tensors" / "w"), SOON,
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
        poll(lambda: name.stat().st_size == 6000, SOON, "the new file")
        assert name.read_bytes() == pattern(6000, 2)
        assert os.pread(old.fileno(), 6000, 0) == pattern(5000, 1)


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
    poll(lambda: name.stat().st_size == 10, SOON, "the second shard")
    assert name.read_bytes() == bytes(range(10))
    last.unlink()
    poll(lambda: name.stat().st_size == 4, SOON, "one shard less")
    (source / ".metadata").write_bytes(b"x")
    mount.expect_log.append(r"ckptfs: error: \.metadata: byte 0")
    poll(lambda: not os.path.exists(name), SOON, "another marker")


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
