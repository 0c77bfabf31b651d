"""DCP's sharded safetensors, and DCP whose items are safetensors.

What the views show is compared with what PyTorch saved, and reads.
"""

import json
import os
import shutil
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ranks
import util
from group import Group
from stfiles import (FIXTURES, INDEX, NAMES, pattern, write, read_header,
                     check_bytes, check_tensor, code_of, check_slices,
                     check_listing, shards_of, check_stored, random_tensors,
                     sharding)

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
