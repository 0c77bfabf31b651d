# SPDX-License-Identifier: Apache-2.0
"""The view safetensors/: read by the safetensors library and by PyTorch.

The oracle is the library itself: what it writes of the tensors that went into
the checkpoint.  Its header, but for the metadata, and its data must be those
of the mounted file.
"""

import collections
import json
import os
import random
import shutil
import subprocess

import ml_dtypes  # noqa: F401, safetensors.numpy reads bfloat16 with it
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch.distributed.checkpoint._nested_dict import flatten_state_dict

import util
from conftest import DATA
from group import Group

# Types that safetensors has a name for, and, of torch's others, those that
# torch can save.
NAMED = ("float64", "float32", "float16", "bfloat16", "int64", "int32",
         "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool",
         "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
         "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2")
NAMELESS = ("complex128", "complex32")
# The library for Python writes these, but has no way back into torch.
NOT_READ = ("float8_e8m0fnu", "float4_e2m1fn_x2")
MODEL = "model.safetensors"


def known(seed, *shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype)


def any_bits(seed, dtype, *shape):
    """A tensor of any type: random bits, but 0 and 1 for bool."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    size = torch.empty(0, dtype=dtype).element_size()
    data = torch.randint(0, 256, (*shape[:-1], shape[-1] * size),
                         dtype=torch.uint8, generator=generator)
    return data.view(dtype)


def states():
    """The state dicts that are saved, each as a checkpoint of its own."""
    weights = {
        "embed.weight": known(1, 40, 6), "norm": known(2, 7),
        "half": known(3, 9, 5, dtype=torch.bfloat16),
        "count": torch.tensor(7), "none": torch.zeros(0, 3),
        "layers": [known(4, 5, 3), {"weight": known(5, 3), "n": 2}],
    }
    moments = {"state": {0: {"exp_avg": known(6, 40, 6),
                             "step": torch.tensor(3.)},
                         1: {"exp_avg": known(7, 7)}},
               "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
    return {
        "dicts": {"model": weights, "optim": moments, "step": 12},
        "nested": {"app": {"model": weights, "optim": moments, "n": 1},
                   "other": {"model": {"deep": {"w": known(8, 4)}}}},
        "flat": {"model.embed.weight": known(9, 8, 3), "model": known(10, 3),
                 "lm_head.weight": known(11, 6, 2), "lr": 0.5},
        "beside": {"model": {"w": known(12, 6)}, "loose": known(13, 4, 4),
                   "model.v": known(14, 3), "_flat": {"u": known(15, 2)}},
        "dots": {"a.b": {"c": known(16, 3)}, "a": {"x": {"d": known(17, 4)},
                                                   "b.e": known(18, 5)}},
        "odd": {"a/b": {"%": known(19, 2), "\u00e9[0]": known(20, 3, 3)},
                "50%": {"": known(21, 2), "\n\"\\": known(22, 4)},
                "\u4f60": {"x": known(23, 2, 2)}, "..": {"y": known(24, 3)},
                "k" * 190: {"z": known(25, 2)},
                "\ud800": {"v": known(26, 3)}},
        "types": {"types": {name: any_bits(i, getattr(torch, name), 6, 6)
                            for i, name in enumerate(NAMED + NAMELESS)}},
    }


def leaves(state):
    """fqn -> (path, tensor), as torch flattens the state."""
    values, paths = flatten_state_dict(state)
    return {name: (paths[name], value) for name, value in values.items()
            if isinstance(value, torch.Tensor)}


def is_text(name):
    """Can JSON hold it?"""
    return not any("\ud800" <= char < "\ue000" for char in name)


def below(state, key):
    """What is below a key, by the names that are left of it."""
    return {name[len(key) + 1:]: tensor
            for name, (path, tensor) in leaves(state).items()
            if any(".".join(map(str, path[:count])) == key
                   for count in range(1, len(path)))}


def files_of(state):
    """File name -> its tensors, by the rule of TOP."""
    tops, loose = collections.defaultdict(dict), {}
    for name, (path, tensor) in leaves(state).items():
        if len(path) > 1:
            tops[path[0]][name[len(path[0]) + 1:]] = tensor
        else:
            loose[name] = tensor
    if loose:
        free = "model"
        while free in tops:
            free = "_" + free if free != "model" else "_flat"
        tops[free] = loose
    return {util.encode(top) + ".safetensors": tensors
            for top, tensors in tops.items()}


def split(data):
    """(header but for the metadata, metadata, offset of the data)"""
    size = 8 + int.from_bytes(data[:8], "little")
    text = data[8:size].decode()
    header = json.loads(text, object_pairs_hook=collections.OrderedDict)
    return header, header.pop("__metadata__", {}), size


def check_file(path, tensors):
    """The file is what the library writes, but for where its data starts."""
    data = path.read_bytes()
    assert path.stat().st_size == len(data)
    header, metadata, start = split(data)
    want, _, want_start = split(safetensors.torch.save(
        {n: t.contiguous() for n, t in tensors.items()}))
    # The keys in their order, too.
    assert list(header.items()) == list(want.items())
    assert start % 4096 == 0
    assert metadata.pop("format") == "pt"
    assert data[start:] == safetensors.torch.save(
        {n: t.contiguous() for n, t in tensors.items()})[want_start:]
    return metadata


def same(got, want):
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype, name
        assert got[name].shape == tensor.shape, name
        assert util.tensor_bytes(got[name]) == util.tensor_bytes(tensor), name


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of all checkpoints, and the states, saved by three ranks."""
    root = tmp_path_factory.mktemp("saved")
    group = Group(3, tmp_path_factory.mktemp("meeting"))
    made = states()
    try:
        for name, state in made.items():
            torch.save(state, root.parent / "state.pt")
            group.run("save_state", str(root / name),
                      str(root.parent / "state.pt"))
    finally:
        group.stop()
    return root, made


@pytest.fixture
def view(ckpt, saved):
    """view(case) -> (the folder safetensors/, the state)"""
    mount = ckpt(saved[0])
    return lambda case: (mount.path / case / "safetensors", saved[1][case])


CASES = ("dicts", "nested", "flat", "beside", "dots", "odd")


@pytest.mark.parametrize("case", CASES)
def test_every_file(view, case):
    folder, state = view(case)
    want = files_of(state)
    assert sorted(os.listdir(folder)) == sorted(want)
    for name, tensors in want.items():
        assert check_file(folder / name, tensors) == {}
        same(safetensors.torch.load_file(folder / name), tensors)


def test_the_files_have_the_names_of_the_keys(view):
    """The rule that files_of() follows, spelled out."""
    for case, names in {
            "dicts": ("model", "optim"), "nested": ("app", "other"),
            "flat": ("model",), "beside": ("_flat", "__flat", "model"),
            "dots": ("a", "a.b"),
            "odd": ("a%2Fb", "50%25", "\u4f60", "%2E%2E",
                    util.encode("k" * 190), "%ED%A0%80")}.items():
        folder, _ = view(case)
        assert sorted(os.listdir(folder)) == \
            sorted(n + ".safetensors" for n in names), case


@pytest.mark.parametrize("case, key", [
    ("nested", "app.model"), ("nested", "app.optim.state"),
    ("nested", "app.model.layers"), ("nested", "other.model.deep"),
    ("dicts", "optim.state"), ("dicts", "optim.state.0"), ("dots", "a.b"),
    ("dots", "a.x"),
])
def test_deeper_keys_by_lookup(view, case, key):
    folder, state = view(case)
    name = util.encode(key) + ".safetensors"
    assert (name in os.listdir(folder)) == (key in state)
    tensors = below(state, key)
    assert tensors
    assert check_file(folder / name, tensors) == {}
    same(safetensors.torch.load_file(folder / name), tensors)


@pytest.mark.parametrize("case, name", [
    ("dicts", "optimizer"), ("dicts", "mode"), ("dicts", "model.embed"),
    ("dicts", "model.layers.0.x"), ("flat", "_flat"), ("dots", "a.b.c.d"),
    ("nested", "model"), ("odd", "50%"), ("dicts", ""), ("dicts", "model[0]"),
    ("dicts", "model.norm[8]"), ("dicts", "model.norm[0:1,0:1]"),
])
def test_what_is_not_there(view, case, name):
    folder, _ = view(case)
    util.same_errno(util.errno_of(os.stat, folder / (name + ".safetensors")),
                    "ENOENT")


@pytest.mark.parametrize("case", CASES)
def test_one_tensor_by_lookup(view, case):
    folder, state = view(case)
    listed = os.listdir(folder)
    for name, (_, tensor) in leaves(state).items():
        file = util.encode(name) + ".safetensors"
        if file in listed:
            # A tensor called `model` beside flat ones: the file of all.
            continue
        if not is_text(name):
            util.same_errno(util.errno_of(os.stat, folder / file),
                            "EOPNOTSUPP")
            continue
        assert check_file(folder / file, {name: tensor}) == {}
        same(safetensors.torch.load_file(folder / file), {name: tensor})
        attributes = util.xattrs(folder / file)
        assert attributes["user.ckptfs.name"] == name
        assert json.loads(attributes["user.ckptfs.shape"]) == \
            list(tensor.shape)
    assert os.listdir(folder) == listed


@pytest.mark.parametrize("case", ("dicts", "flat", "odd"))
def test_slices(view, case, rng):
    folder, state = view(case)
    listed = os.listdir(folder)
    for name, (_, tensor) in leaves(state).items():
        for _ in range(4 if tensor.ndim and is_text(name) else 0):
            text, index = util.random_slice(rng, tensor.shape)
            part = tensor[index]
            path = folder / ("%s[%s].safetensors" % (util.encode(name), text))
            metadata = check_file(path, {name: part})
            if part.shape == tensor.shape:
                assert metadata == {}
                continue
            assert metadata["DCP_VERSION"] == "1.0"
            assert json.loads(metadata["DCP_SHARDING_INFO"]) == {name: {
                "saved_offsets": [i.start for i in index] +
                [0] * (tensor.ndim - len(index)),
                "global_shape": list(tensor.shape)}}
            assert json.loads(os.getxattr(path, "user.ckptfs.shape")) == \
                list(part.shape)
    assert os.listdir(folder) == listed


# Types

def test_every_type(view):
    folder, state = view("types")
    tensors = {n: t for n, t in state["types"].items() if n in NAMED}
    metadata = check_file(folder / "types.safetensors", tensors)
    assert sorted(json.loads(metadata["ckptfs.left_out"])) == \
        sorted(NAMELESS)
    for name in NAMED:
        path = folder / ("types.%s.safetensors" % name)
        want = {"types." + name: tensors[name]}
        assert check_file(path, want) == {}
        if name not in NOT_READ:
            same(safetensors.torch.load_file(path), want)
        sliced = folder / ("types.%s[1:4,1:3].safetensors" % name)
        assert "DCP_SHARDING_INFO" in check_file(
            sliced, {"types." + name: tensors[name][1:4, 1:3]})


@pytest.mark.parametrize("name", NAMELESS)
def test_types_without_a_name(view, name):
    folder, _ = view("types")
    for file in (name, name + "[0:2]"):
        path = folder / ("types.%s.safetensors" % file)
        util.same_errno(util.errno_of(path.read_bytes), "EOPNOTSUPP")


def test_float4_counts_elements(view):
    folder, state = view("types")
    name = "types.float4_e2m1fn_x2"
    with safe_open(folder / (name + ".safetensors"), "np") as file:
        assert file.get_slice(name).get_shape() == [6, 12]
        assert file.get_slice(name).get_dtype() == "F4"
    assert json.loads(os.getxattr(folder / (name + ".safetensors"),
                                  "user.ckptfs.shape")) == [6, 6]


def test_packed_types_pass_through(ckpt, tmp_path):
    """Types of less than a byte, which only safetensors has: from a file."""
    entries = {"f4": ("F4", [4, 6], 12), "six": ("F6_E2M3", [4, 8], 24),
               "odd": ("F6_E3M2", [5, 2, 2], 15)}
    header, data = {}, b""
    rng = np.random.default_rng(3)
    for name, (dtype, shape, size) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + size]}
        data += rng.bytes(size)
    text = json.dumps(header).encode()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "packed.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + data)
    folder = ckpt(tmp_path / "store").path / "safetensors"
    assert os.listdir(folder) == [MODEL]

    def want(name):
        begin, end = header[name]["data_offsets"]
        return data[begin:end]

    def check(file, name, shape, part):
        file = (folder / (file + ".safetensors")).read_bytes()
        got, metadata, start = split(file)
        assert list(got) == [name] and start % 4096 == 0
        assert got[name] == {"dtype": entries[name][0], "shape": shape,
                             "data_offsets": [0, len(part)]}
        assert file[start:] == part
        return metadata

    got, metadata, start = split((folder / MODEL).read_bytes())
    assert metadata == {"format": "pt"}
    # By alignment, which is the order of the bits, downwards; then by name.
    assert list(got) == ["odd", "six", "f4"]
    assert (folder / MODEL).read_bytes()[start:] == \
        want("odd") + want("six") + want("f4")
    for name, (dtype, shape, _) in entries.items():
        assert (got[name]["dtype"], got[name]["shape"]) == (dtype, shape)
        assert check(name, name, shape, want(name)) == {"format": "pt"}
    with safe_open(folder / MODEL, "np") as file:
        assert file.get_slice("six").get_shape() == [4, 8]
    rows = np.frombuffer(want("six"), np.uint8).reshape(4, 6)
    check("six[1:3,4:8]", "six", [2, 4],
          np.ascontiguousarray(rows[1:3, 3:6]).tobytes())
    check("odd[2:4]", "odd", [2, 2, 2], want("odd")[6:12])
    rows = np.frombuffer(want("f4"), np.uint8).reshape(4, 3)
    metadata = check("f4[:,2:6]", "f4", [4, 4],
                     np.ascontiguousarray(rows[:, 1:]).tobytes())
    assert "DCP_SHARDING_INFO" in metadata
    # What does not fall on bytes is not there.
    for file in "six[:,1:5]", "six[:,0:3]", "f4[:,1:3]", "odd[:,0:1]":
        util.same_errno(util.errno_of(
            os.stat, folder / (file + ".safetensors")), "ENOENT")


def test_only_types_without_a_name(ckpt, tmp_path):
    tensor = any_bits(1, torch.complex128, 3)
    util.save_chunks(tmp_path / "store", {"c": (tensor, [((0,), (3,))])})
    folder = ckpt(tmp_path / "store").path / "safetensors"
    assert os.listdir(folder) == [MODEL]
    data = (folder / MODEL).read_bytes()
    assert split(data) == ({}, {"format": "pt",
                                "ckptfs.left_out": '["c"]'}, 4096)
    assert len(data) == 4096
    assert safetensors.torch.load_file(folder / MODEL) == {}


# What is left out

def test_tensors_with_holes(ckpt, tmp_path):
    """Who maps the file of all would die of a read that fails."""
    whole, torn = known(1, 6, 3), known(2, 8, 4)
    util.save_chunks(tmp_path / "store", {
        "whole": (whole, util.grid(whole.shape, (2, 1))),
        "torn": (torn, [((0, 0), (3, 4)), ((5, 0), (3, 4))])})
    mount = ckpt(tmp_path / "store")
    folder = mount.path / "safetensors"
    metadata = check_file(folder / MODEL, {"whole": whole})
    assert json.loads(metadata["ckptfs.left_out"]) == ["torn"]
    same(safetensors.torch.load_file(folder / MODEL), {"whole": whole})
    # By name it can be had, and what is there of it read.
    check_file(folder / "torn[5:8].safetensors", {"torn": torn[5:8]})
    fd = os.open(folder / "torn.safetensors", os.O_RDONLY | os.O_DIRECT)
    try:
        assert split(os.pread(fd, 4096, 0))[0]["torn"]["shape"] == [8, 4]
        util.same_errno(util.errno_of(os.pread, fd, 4096, 4096), "EIO")
    finally:
        os.close(fd)


def test_names_that_json_cannot_hold(ckpt, tmp_path):
    names = ["good", "__metadata__", "bad\ud800", "a.__metadata__"]
    tensors = {n: known(i, 3) for i, n in enumerate(names)}
    util.save_chunks(tmp_path / "store", {
        n: (t, [((0,), (3,))]) for n, t in tensors.items()})
    folder = ckpt(tmp_path / "store").path / "safetensors"
    metadata = check_file(folder / MODEL, {
        n: tensors[n] for n in ("good", "a.__metadata__")})
    assert json.loads(metadata["ckptfs.left_out"]) == \
        ["__metadata__", "bad\ufffd\ufffd\ufffd"]
    for name in ("__metadata__", "bad\ud800"):
        path = folder / (util.encode(name) + ".safetensors")
        util.same_errno(util.errno_of(path.read_bytes), "EOPNOTSUPP")


def test_tensors_behind_unknown_extensions(ckpt, tmp_path, fixtures_dir):
    """It is known from the start that they cannot be read."""
    shutil.copytree(fixtures_dir / "torch-2.14.1" / "ext_chain_inc_zstd",
                    tmp_path / "store")
    os.utime(tmp_path / "store" / ".metadata")
    mount = ckpt(tmp_path / "store").path
    names = os.listdir(mount / "tensors")
    left = []
    for file in os.listdir(mount / "safetensors"):
        data = (mount / "safetensors" / file).read_bytes()
        left += json.loads(split(data)[1].get("ckptfs.left_out", "[]"))
    assert len(left) == len(names)


def test_a_key_that_is_spelled_like_a_path(ckpt, tmp_path):
    """A file that is listed has what is below one key, and no more."""
    state = {"a.b": {"c": known(1, 3)}, "a": {"b": {"d": known(2, 4)}}}
    dcp.save(state, checkpoint_id=tmp_path / "store" / "step", no_dist=True)
    folder = ckpt(tmp_path / "store").path / "step" / "safetensors"
    assert sorted(os.listdir(folder)) == ["a.b.safetensors", "a.safetensors"]
    check_file(folder / "a.b.safetensors", {"c": state["a.b"]["c"]})
    check_file(folder / "a.safetensors", {"b.d": state["a"]["b"]["d"]})


# Checkpoints of other releases

# One has no data, one data behind an extension of the writer's own.
UNREADABLE = ("metadata_2500keys", "ext_chain_inc_zstd")


def fixtures():
    """Those with one .metadata, by their path below the fixtures."""
    return sorted(str(path.parent.relative_to(DATA / "fixtures"))
                  for path in (DATA / "fixtures").glob("*/*/.metadata")
                  if path.parent.name not in UNREADABLE)


@pytest.mark.parametrize("name", fixtures())
def test_fixtures(ckpt, fixtures_dir, tmp_path, name):
    """Every tensor is in one file, or left out of it, with the bytes that
    tensors/ has; which file, PyTorch's own reading of the paths says."""
    shutil.copytree(fixtures_dir / name, tmp_path / "store")
    os.utime(tmp_path / "store" / ".metadata")
    metadata = util.read_metadata(tmp_path / "store" / ".metadata")
    mount = ckpt(tmp_path / "store").path
    paths = metadata.planner_data or {}
    want = collections.defaultdict(dict)
    for tensor in json.loads((mount / "tensors.json").read_text()):
        path = paths.get(tensor["name"], ())
        top = str(path[0]) if len(path) > 1 else None
        key = tensor["name"][len(top) + 1:] if top else tensor["name"]
        want[top][key] = tensor
    if None in want:
        want["_flat" if "model" in want else "model"] = want.pop(None)
    folder = mount / "safetensors"
    assert sorted(os.listdir(folder)) == sorted(
        util.encode(top) + ".safetensors" for top in want)
    for top, tensors in want.items():
        data = (folder / (util.encode(top) + ".safetensors")).read_bytes()
        header, extra, start = split(data)
        left = json.loads(extra.get("ckptfs.left_out", "[]"))
        assert sorted([*header, *left]) == sorted(tensors)
        for key, entry in header.items():
            begin, end = entry["data_offsets"]
            path = mount / "tensors" / util.encode(tensors[key]["name"])
            assert data[start + begin:start + end] == path.read_bytes()
            assert entry["dtype"] == tensors[key]["dtype"]
        for key in left:
            assert tensors[key]["dtype"] in (
                "C128", "C32", "BC32", "QI8", "QU8", "QI32"), key


# Readers of all sorts

def test_numpy(view):
    folder, state = view("dicts")
    got = safetensors.numpy.load_file(folder / MODEL)
    want = below(state, "model")
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].shape == tuple(tensor.shape)
        assert got[name].tobytes() == util.tensor_bytes(tensor)
        if tensor.dtype != torch.bfloat16:
            assert np.array_equal(got[name], tensor.numpy())


def check_random_slices(path, tensors, seed, count):
    rng = random.Random(seed)
    names = sorted(n for n, t in tensors.items() if t.ndim)
    with safe_open(path, "pt") as file:
        for _ in range(count):
            name = rng.choice(names)
            index = util.random_slice(rng, tensors[name].shape)[1]
            got = file.get_slice(name)[index]
            if util.tensor_bytes(got) != util.tensor_bytes(
                    tensors[name][index]):
                return "%s%s" % (name, index)
    return ""


def test_get_slice(view, rng):
    folder, state = view("nested")
    seed = rng.randrange(1 << 30)
    assert check_random_slices(folder / "app.safetensors",
                               below(state, "app"), seed, 200) == ""


def test_copies(view, tmp_path):
    """By cp -r, by cp of one, and by dd in blocks that fit nothing."""
    folder, state = view("dicts")
    subprocess.run(["cp", "-r", "%s/." % folder, tmp_path / "all"],
                   check=True)
    assert sorted(os.listdir(tmp_path / "all")) == \
        sorted(files_of(state))
    for name, tensors in files_of(state).items():
        subprocess.run(["cmp", folder / name, tmp_path / "all" / name],
                       check=True)
        same(safetensors.torch.load_file(tmp_path / "all" / name), tensors)
    subprocess.run(["dd", "if=%s" % (folder / MODEL), "bs=777",
                    "of=%s" % (tmp_path / "dd"), "status=none"], check=True)
    assert (tmp_path / "dd").read_bytes() == (folder / MODEL).read_bytes()
    # The links of the views, not their files: as for every view.
    assert os.path.islink(folder)


def test_torch_loads_the_folder(view):
    """PyTorch's reader for Hugging Face takes a view as a checkpoint."""
    folder, state = view("dicts")
    for where, want in (
            (folder.parent / "hf", below(state, "model")),
            (folder, {**below(state, "model"), **below(state, "optim")})):
        got = {n: torch.zeros_like(t) for n, t in want.items()}
        dcp.load(got, storage_reader=dcp.HuggingFaceStorageReader(
            str(where)), no_dist=True)
        same(got, want)


def reshard(folder, tensors, parts, out):
    """Copy each tensor to `out`, cut into parts along each axis by name."""
    out.mkdir()
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or tensor.numel() == 0:
            shutil.copy(folder / (util.encode(name) + ".safetensors"), out)
            continue
        for offsets, sizes in util.grid(tensor.shape, parts):
            text = ",".join("%d:%d" % (o, o + s)
                            for o, s in zip(offsets, sizes))
            shutil.copy(folder / ("%s[%s].safetensors" % (
                util.encode(name), text)), out)


@pytest.mark.parametrize("parts", [(2, 2), (3, 1)])
def test_slices_are_shards_for_torch(view, tmp_path, parts):
    folder, state = view("flat")
    tensors = {n: t for n, (_, t) in leaves(state).items() if n != "model"}
    reshard(folder, tensors, parts, tmp_path / "shards")
    got = {n: torch.zeros_like(t) for n, t in tensors.items()}
    dcp.load(got, storage_reader=dcp.HuggingFaceStorageReader(
        str(tmp_path / "shards")), no_dist=True)
    same(got, tensors)


@pytest.mark.parametrize("parts", [(2, 2), (3, 1)])
def test_slices_are_shards_for_a_mount(view, ckpt, tmp_path, parts):
    folder, state = view("flat")
    tensors = {n: t for n, (_, t) in leaves(state).items() if n != "model"}
    reshard(folder, tensors, parts, tmp_path / "shards")
    mount = ckpt(tmp_path / "shards").path
    assert sorted(os.listdir(mount / "tensors")) == sorted(tensors)
    for name, tensor in tensors.items():
        assert (mount / "tensors" / name).read_bytes() == \
            util.tensor_bytes(tensor)
    check_file(mount / "safetensors" / MODEL, tensors)
