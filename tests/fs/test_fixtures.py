"""Checkpoints that real PyTorch wrote, against the hashes kept beside them."""

import io
import json
import os
import random
import shutil

import numpy as np
import pytest
import torch

import util
from conftest import DATA

ROOT = DATA / "fixtures"
SUFFIX = ".expect.json"
NAMES = sorted(str(path.relative_to(ROOT))[:-len(SUFFIX)]
               for path in ROOT.glob("*/*" + SUFFIX))
# The data file of this one is as regular as its name: see keys2500().
WITHOUT_DATA = "torch-2.14.1/metadata_2500keys"


def expected(name):
    return json.loads((ROOT / (name + SUFFIX)).read_text())


def keys2500(folder):
    """The fixture's .metadata with the data that it was saved with."""
    shutil.copytree(ROOT / WITHOUT_DATA, folder)
    items = util.items_of(folder)
    with open(folder / "__0_0.distcp", "wb") as file:
        for (name, _), info in items.items():
            index = int(name.split(".")[1])
            item = io.BytesIO()
            torch.save(torch.full((2,), float(index)), item)
            assert len(item.getvalue()) == info.length, torch.__version__
            assert file.tell() == info.offset
            file.write(item.getvalue())
    return folder


@pytest.fixture
def source(request, tmp_path):
    if request.param == WITHOUT_DATA:
        return keys2500(tmp_path / "keys2500")
    return ROOT / request.param


each_fixture = pytest.mark.parametrize(
    "name, source", [(n, n) for n in NAMES], indirect=["source"], ids=NAMES)


def tensors_of(expect):
    return {n: e for n, e in expect.items() if e != ["bytes"]}


def check_tensor(mount, name, dtype, shape, digest):
    """One tensor through every view that has it."""
    size, code, _ = util.TYPES[dtype]
    raw = mount / "tensors" / util.encode(name)
    npy = mount / "npy" / (util.encode(name) + ".npy")
    data = raw.read_bytes()
    assert util.sha256(data) == digest
    assert raw.stat().st_size == len(data)
    file = npy.read_bytes()
    assert npy.stat().st_size == len(file)
    util.check_npy(file, dtype, shape, data)
    for path in raw, npy:
        found = util.xattrs(path)
        assert found.keys() == {"user.ckptfs." + key for key in
                                ("name", "dtype", "torch_dtype", "shape",
                                 "shards")}
        assert found["user.ckptfs.name"] == name
        assert found["user.ckptfs.dtype"] == code
        assert found["user.ckptfs.torch_dtype"] == dtype
        assert found["user.ckptfs.shape"] == \
            "[" + ",".join(map(str, shape)) + "]"
    whole = np.load(npy)
    assert whole.shape == tuple(shape)
    assert util.array_bytes(whole) == data
    if data:
        mapped = np.load(npy, mmap_mode="r")
        assert util.array_bytes(mapped) == data
    return data


@pytest.mark.timeout(180)
@each_fixture
def test_every_tensor(ckpt, name, source):
    mount = ckpt(source).path
    expect = tensors_of(expected(name))
    assert expect
    for tensor, (dtype, shape, digest) in expect.items():
        check_tensor(mount, tensor, dtype, shape, digest)


@each_fixture
def test_listings_are_complete(ckpt, name, source):
    mount = ckpt(source).path
    tensors = {util.encode(n) for n in tensors_of(expected(name))}
    listed = os.listdir(mount / "tensors")
    assert len(listed) == len(set(listed))
    assert set(listed) == tensors
    assert set(os.listdir(mount / "npy")) == {n + ".npy" for n in tensors}


@each_fixture
def test_random_slices(ckpt, name, source):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    mount = ckpt(source).path
    expect = {n: e for n, e in tensors_of(expected(name)).items() if e[1]}
    for tensor in rng.sample(sorted(expect), min(len(expect), 25)):
        dtype, shape, digest = expect[tensor]
        base = mount / "tensors" / util.encode(tensor)
        data = base.read_bytes()
        assert util.sha256(data) == digest
        array = util.as_array(data, shape, util.TYPES[dtype][0])
        for _ in range(8):
            text, index = util.random_slice(rng, shape)
            want = array[index]
            what = "%s[%s]" % (util.encode(tensor), text)
            path = mount / "tensors" / what
            assert path.read_bytes() == util.array_bytes(want), what
            assert path.stat().st_size == want.nbytes, what
            file = (mount / "npy" / (what + ".npy")).read_bytes()
            util.check_npy(file, dtype, want.shape, util.array_bytes(want))
            assert json.loads(os.getxattr(path, "user.ckptfs.shape")) == \
                list(want.shape), what


@each_fixture
def test_objects(ckpt, name, source):
    mount = ckpt(source).path
    items = util.items_of(source)
    names = [n for n, e in expected(name).items() if e == ["bytes"]]
    listing = set()
    for key in names:
        stored = util.item_bytes(source, items[key, None])
        file = mount / "objects" / (util.encode(key) + ".pt")
        text = mount / "objects" / (util.encode(key) + ".json")
        listing.add(file.name)
        assert file.read_bytes() == stored
        assert file.stat().st_size == len(stored)
        value = util.load_object(stored)
        assert util.xattrs(file) == {"user.ckptfs.name": key}
        if not util.is_plain(value):
            util.same_errno(util.errno_of(os.stat, text), "ENOENT")
            continue
        listing.add(text.name)
        assert util.load_object(file.read_bytes()) == value
        assert json.loads(text.read_text()) == util.as_json(value)
        assert text.stat().st_size == len(text.read_bytes())
        assert util.xattrs(text) == {"user.ckptfs.name": key}
    assert set(os.listdir(mount / "objects")) == listing


def shards_of(source):
    """Tensor name -> its shards, as user.ckptfs.shards must have them."""
    whole = util.read_metadata(os.path.join(source, ".metadata"))
    items = util.items_of(source)
    found = {}
    for name, entry in whole.state_dict_metadata.items():
        for chunk in getattr(entry, "chunks", ()):
            info = items[name, tuple(chunk.offsets)]
            found.setdefault(name, []).append({
                "box": {"offsets": list(chunk.offsets),
                        "sizes": list(chunk.sizes)},
                "rank": 0, "file": info.relative_path,
                "offset": info.offset, "size": info.length})
    return found


def filled(shards):
    """Without empty shards, in the order of their offsets."""
    return sorted((s for s in shards if 0 not in s["box"]["sizes"]),
                  key=lambda s: s["box"]["offsets"])


@each_fixture
def test_shards(ckpt, name, source):
    mount = ckpt(source).path
    for tensor, want in shards_of(source).items():
        path = mount / "tensors" / util.encode(tensor)
        found = json.loads(os.getxattr(path, "user.ckptfs.shards"))
        assert filled(found) == filled(want)


def test_shards_of_a_slice(ckpt):
    source = ROOT / "torch-2.14.1" / "dtensor4"
    mount = ckpt(source).path
    # [8, 8] in four quarters, and [10, 3] cut as 3, 3, 3, 1.
    for tensor, text, touched in (
            ("two", "0:4,0:4", 1), ("two", ":,4:8", 2), ("two", "3:5,3:5", 4),
            ("uneven", "9", 1), ("uneven", "2:4", 2), ("uneven", "5:5", 0)):
        path = mount / "tensors" / ("%s[%s]" % (tensor, text))
        found = json.loads(os.getxattr(path, "user.ckptfs.shards"))
        assert len(filled(found)) == touched, (tensor, text)
        whole = shards_of(source)[tensor]
        assert all(shard in whole for shard in found)


@each_fixture
def test_tensors_json(ckpt, name, source):
    mount = ckpt(source).path
    text = (mount / "tensors.json").read_text()
    assert (mount / "tensors.json").stat().st_size == len(text.encode())
    entries = json.loads(text)
    expect = tensors_of(expected(name))
    assert len(entries) == len(expect)
    shards = shards_of(source)
    for entry in entries:
        dtype, shape, _ = expect[entry["name"]]
        size, code, _ = util.TYPES[dtype]
        assert entry["dtype"] == code
        assert entry["torch_dtype"] == dtype
        assert entry["shape"] == shape
        assert entry["nbytes"] == int(np.prod(shape, dtype=int)) * size
        assert entry["file"] == util.encode(entry["name"])
        assert filled(entry["shards"]) == filled(shards[entry["name"]])
        assert "holes" not in entry and "overlap" not in entry
    lines = [line.strip().lstrip("[").rstrip(",]") for line in
             text.splitlines()]
    assert [json.loads(line) for line in lines if line] == entries


# Other layouts of the same tensors

@pytest.mark.parametrize("protocol", ["proto2", "proto3"])
def test_pickle_protocols(ckpt, store, fixtures_dir, protocol):
    name = "torch-2.14.1/dtensor4"
    folder = store(name)
    shutil.copy(fixtures_dir / "torch-2.14.1" / "metadata_protocols" /
                ("dtensor4.metadata." + protocol), folder / ".metadata")
    mount = ckpt(folder).path
    for tensor, entry in tensors_of(expected(name)).items():
        check_tensor(mount, tensor, *entry)
    assert json.loads((mount / "objects" / "step.json").read_text()) == 5


def test_union_of_rank_local_metadata(ckpt, fixtures_dir):
    source = fixtures_dir / "torch-2.14.1" / "dtensor4_rank_local"
    mount = ckpt(source).path
    assert not (source / ".metadata").exists()
    expect = expected("torch-2.14.1/dtensor4")
    for tensor, entry in tensors_of(expect).items():
        check_tensor(mount, tensor, *entry)
    assert set(os.listdir(mount / "tensors")) == set(tensors_of(expect))
    assert json.loads((mount / "objects" / "step.json").read_text()) == 5
    assert json.loads((mount / "objects" / "rng.a.json").read_text()) == [1, 2]
    entries = json.loads((mount / "tensors.json").read_text())
    assert not any("holes" in e or "overlap" in e for e in entries)
    # What every rank has, is taken from the lowest.
    for tensor in ("plain", "scal", "repl"):
        path = mount / "tensors" / tensor
        shards = json.loads(os.getxattr(path, "user.ckptfs.shards"))
        assert [s["file"] for s in shards] == ["__0_0.distcp"]


def test_one_rank_of_a_union(ckpt, store):
    """A lone __2.metadata: the others' rows are holes."""
    folder = store("torch-2.14.1/dtensor4_rank_local")
    for rank in (0, 1, 3):
        (folder / ("__%d.metadata" % rank)).unlink()
    mount = ckpt(folder)
    items = util.items_of(folder, "__2.metadata")
    part = util.load_object(util.item_bytes(folder, items["row", (4, 0)]))
    row = mount.path / "tensors" / "row[4:6]"
    assert row.read_bytes() == util.tensor_bytes(part)
    path = mount.path / "tensors" / "row"
    assert path.stat().st_size == 8 * 6 * 4
    util.same_errno(util.errno_of(path.read_bytes), "EIO")
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 4 * 24) == row.read_bytes()[:10]
        util.same_errno(util.errno_of(os.pread, file.fileno(), 1, 0), "EIO")
    entry = {e["name"]: e for e in json.loads(
        (mount.path / "tensors.json").read_text())}["row"]
    covered = sorted((h["offsets"], h["sizes"]) for h in entry["holes"])
    assert covered == [([0, 0], [4, 6]), ([6, 0], [2, 6])]
    mount.wait_log("ckptfs: warning: .*row")


def test_missing_data_file(ckpt, fixtures_dir):
    """Everything but the bytes works; the log says which file it lacks."""
    mount = ckpt(fixtures_dir / WITHOUT_DATA)
    folder = mount.path / "tensors"
    assert len(os.listdir(folder)) == 2500
    name = "layers.7.attention.wq.weight"
    assert (folder / name).stat().st_size == 8
    assert os.getxattr(folder / name, "user.ckptfs.shape") == b"[2]"
    util.same_errno(util.errno_of((folder / name).read_bytes), "EIO")
    mount.wait_log(r"ckptfs: warning: .*__0_0\.distcp")


def test_quantized(ckpt, fixtures_dir):
    source = fixtures_dir / "torch-2.14.1" / "quantized"
    items = util.items_of(source)
    stored = util.load_object(util.item_bytes(source, items["k", (0,)]))
    mount = ckpt(source).path
    path = mount / "tensors" / "k"
    assert path.read_bytes() == util.tensor_bytes(stored.int_repr())
    assert os.getxattr(path, "user.ckptfs.dtype") == b"QI8"
    assert os.getxattr(path, "user.ckptfs.torch_dtype") == b"qint8"
    plain = util.load_object(util.item_bytes(source, items["w", (0,)]))
    assert (mount / "tensors" / "w").read_bytes() == util.tensor_bytes(plain)


@pytest.mark.parametrize("name, tensors", [
    ("ext_chain_inc_zstd", {"w": 24})])
def test_forms_that_are_not_read(ckpt, store, name, tensors):
    """A clear refusal of the tensor, and no harm to its neighbours."""
    store("torch-2.14.1/" + name, "other")
    store("torch-2.6.0/dtensor4", "good")
    mount = ckpt(store.root, expect_log=[r"ckptfs: error: .*__0_0\.distcp"])
    folder = mount.path / "other" / "tensors"
    assert set(os.listdir(folder)) == set(tensors)
    for tensor, size in tensors.items():
        assert (folder / tensor).stat().st_size == size
        util.same_errno(util.errno_of((folder / tensor).read_bytes),
                        "EOPNOTSUPP", "EIO")
    for tensor, entry in tensors_of(expected("torch-2.6.0/dtensor4")).items():
        check_tensor(mount.path / "good", tensor, *entry)


def test_a_whole_store(ckpt, fixtures_dir):
    """Every fixture below one mount, stored files and views."""
    mount = ckpt(fixtures_dir).path
    stored = {k: v for k, v in util.tree(fixtures_dir).items()}
    assert util.without_links(util.tree(mount)) == stored
    for name in NAMES:
        assert os.path.islink(mount / name / "tensors")
        if name == WITHOUT_DATA:
            continue
        for tensor, entry in tensors_of(expected(name)).items():
            path = mount / name / "tensors" / util.encode(tensor)
            assert util.sha256(path.read_bytes()) == entry[2]
    # Folders that are no checkpoint have no views.
    for folder in (mount, mount / "torch-2.6.0",
                   mount / "torch-2.14.1" / "metadata_protocols"):
        for view in util.VIEWS:
            assert not os.path.lexists(folder / view)


def test_dcp_loads_what_the_hashes_say(fixtures_dir):
    """The oracle checks itself: PyTorch agrees with one expect.json."""
    from torch.distributed.checkpoint import FileSystemReader, load
    folder = fixtures_dir / "torch-2.14.1" / "dtensor4"
    expect = tensors_of(expected("torch-2.14.1/dtensor4"))
    state = {n: torch.zeros(e[1]) for n, e in expect.items()}
    load(state, storage_reader=FileSystemReader(folder))
    for name, tensor in state.items():
        assert util.sha256(util.tensor_bytes(tensor)) == expect[name][2]
