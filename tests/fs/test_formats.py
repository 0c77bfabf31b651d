"""Every variant of the DCP format, written by tests/dcp, read by the mount.

The expected bytes are always those of the NumPy array that went in.
"""

import errno
import io
import itertools
import json
import os
import re
import time
from collections import OrderedDict

import numpy as np
import pytest

import mounting
from dcp import (DTYPES, Blob, Entry, Global, Instance, Item, Layout, Record,
                 Reduce, Zeros, archive, random_array, size)
from dcp.boxes import grid, tiling
from dcp.forms import ITEMS, LAYOUTS, STYLES, unreadable
from dcp.store import Store
from dcp.views import (check_tensor, index, read, read_errno, wait_errors,
                       xattr)

ERAS = ("1.13", "2.0", "2.2", "2.3", "2.4", "2.6", "2.7", "2.9", "2.14")


@pytest.fixture
def many(tmp_path):
    """A Store; write and mount it when it is full."""
    return Store(tmp_path / "store")


def check_objects(mount, store):
    """lr of basic() is there as stored, and as JSON."""
    for name, ck in store.checkpoints.items():
        folder = mount.path / name / "objects"
        stored = next(e.blob for e in ck.entries if e.name == "lr")
        assert read(folder / "lr.pt") == bytes(stored), name
        assert json.loads(read(folder / "lr.json")) == 0.1, name
        assert xattr(folder / "lr.pt", "name") == "lr"
        assert os.listxattr(folder / "lr.pt") == ["user.ckptfs.name"]


# -- .metadata


def test_every_release_and_protocol(many, ckpt):
    for era, protocol in itertools.product(ERAS, (2, 3, 4, 5)):
        many.basic(many.add(f"{era}-p{protocol}", era, protocol=protocol))
    for era in ("1.13", "2.2", "2.14"):
        many.basic(many.add(f"{era}-getattr", era, enum="getattr"))
    for path in ("parts", "local", "pathlib", "windows", "str", "none"):
        many.basic(many.add(f"path-{path}", "2.6", path=path))
    mount = many.mount(ckpt)
    many.check(mount, slices=1)
    check_objects(mount, many)


def test_every_spelling_of_the_opcodes(many, ckpt):
    for name, style in STYLES.items():
        for protocol in (2, 4):
            if name == "binunicode8" and protocol == 2:
                continue
            ck = many.add(f"{name}-{protocol}", protocol=protocol, style=style)
            many.tensor(ck, "w", "float32", (4, 6), grid((4, 6), (2, 2)),
                        style=style)
            many.tensor(ck, "v3", "uint16", (5,), style=style)
            ck.object("lr", 0.1, **style)
    mount = many.mount(ckpt)
    many.check(mount)
    check_objects(mount, many)


def test_what_no_reader_needs(many, ckpt):
    """Other opcodes and attributes, a later version, bytes behind the end."""
    extra = {"sets": [{1, 2}, frozenset("ab")], "blob": [b"x", b"y" * 300]}
    ck = many.add("extra", protocol=4, extras={
        "someone": extra, "version": "9.9"})
    many.basic(ck)
    ck.entries[0].extra = {"transform_descriptors": None, "else": 7}
    ck.entries[1].extra = {"transform_descriptors": []}
    ck.edit = lambda state: state["state_dict_metadata"]["step"].state.update(
        more={"a": (1, 2)})
    ck.write()
    with open(ck.folder / ".metadata", "ab") as file:
        file.write(b"trailing bytes are not part of the pickle")
    many.check(many.mount(ckpt))


@pytest.mark.parametrize("count", (999, 1000, 1001, 2000, 2500))
def test_batches_of_keys(many, ckpt, count):
    """Dicts come in batches of 1000; some writers end in an empty one."""
    ck = many.add("step", protocol=4 if count % 2 else 2)
    array = np.arange(count * 3, dtype="<i4").reshape(count, 3)
    for i in range(count):
        ck.tensor(f"layers.{i}.weight", "int32", array[i])
    mount = many.mount(ckpt)
    names = os.listdir(mount.path / "step/tensors")
    assert sorted(names) == sorted(ck.tensors)
    for i in {0, 1, 998, count // 2, count - 1} | set(
            map(int, many.rng.integers(0, count, 20))):
        check_tensor(mount.path / "step", f"layers.{i}.weight", "int32",
                     array[i])
    assert len(index(mount.path / "step")) == count


def test_a_tensor_of_many_shards(many, ckpt):
    """More chunks than one APPENDS takes."""
    ck = many.add("step")
    many.tensor(ck, "w", "int16", (1201, 3), grid((1201, 3), (1201, 1)),
                ranks=[i % 16 for i in range(1201)])
    many.tensor(ck, "exact", "int16", (1000,), grid((1000,), (1000,)),
                ranks=[0] * 1000)
    many.check(many.mount(ckpt), slices=8)


def test_megatron_extras(many, ckpt):
    """Unknown attributes, unknown classes, another class of root."""
    planner = "torch.distributed.checkpoint.planner"
    kind = Global(planner, "WriteItemType")
    item = Instance(Global(planner, "WriteItem"), {
        "type": Reduce(kind, (2,)), "bytes_io_data": None,
        "tensor_data": Instance(Global(planner, "TensorWriteData"), {
            "size": size((4, 6)), "properties": None})})
    plan = Instance(Global(planner, "SavePlan"), {
        "items": [item] * 3, "storage_data": None, "planner_data": {"w": 1}})
    megatron = "megatron.core.dist_checkpointing.strategies.torch"
    mcore = Instance(Global(megatron, "MCoreSavePlan"), {"items": [item]})
    extras = {"mcore_data": {"w": {"nd_reformulated_orig_global_shape":
                                   (2, 12)}},
              "all_local_plans": [plan, mcore]}
    for era in ("2.0", "2.2", "2.4", "2.14"):
        for root in (None, Global(megatron, "MCoreMetadata")):
            ck = many.add(f"{era}-{root is None}", era, planner=False,
                          extras=extras, root=root)
            many.basic(ck)
            ck.object("rng/shard_0_2", {"a": 1})
    mount = many.mount(ckpt)
    many.check(mount)
    check_objects(mount, many)


# -- files


@pytest.mark.parametrize("files,threads", (("rank", 1), ("item", 1),
                                           ("thread", 3)))
def test_files_of_ranks_items_threads(many, ckpt, files, threads):
    for rank_local in (False, True):
        ck = many.add(f"local-{rank_local}", files=files, threads=threads,
                      rank_local=rank_local)
        many.basic(ck)
        many.tensor(ck, "grid", "float64", (5, 7, 3),
                    grid((5, 7, 3), (2, 2, 2)))
    for ck in many.checkpoints.values():
        ck.write()
    mount = ckpt(many.root)
    many.check(mount, slices=6)
    check_objects(mount, many)
    for ck in many.checkpoints.values():
        for name in os.listdir(ck.folder):
            assert read(ck.folder / name) == \
                read(mount.path / ck.folder.name / name)


def test_replicas_in_rank_local_metadata(many, ckpt):
    """A tensor that each rank describes; the lowest rank's copy is read."""
    whole = [((0, 0), (3, 4))] * 3
    ck = many.add("step", rank_local=True)
    array = random_array(DTYPES["float32"], (3, 4), many.rng)
    items = [Item().build(DTYPES["float32"], array + rank)
             for rank in range(3)]
    ck.tensor("same", "float32", array, whole, items=items)
    many.tensors.append(("step", "same", "float32", array))
    many.tensor(ck, "split", "int32", (7, 2), grid((7, 2), (3, 1)))
    ck.object("lr", 0.1, rank=2)
    for rank in (0, 1):
        ck.entries.append(Entry("lr", None, None, rank, ck.entries[-1].blob))
    many.checkpoints = {"step": ck}
    ck.write()
    mount = ckpt(many.root)
    many.check(mount)
    shards = json.loads(xattr(mount.path / "step/tensors/same", "shards"))
    assert [s["file"] for s in shards] == ["__0_0.distcp"]
    assert json.loads(read(mount.path / "step/objects/lr.json")) == 0.1


def test_shards_attribute_says_where_items_lie(many, ckpt):
    """rank is that of the daemon that has the file."""
    ck = many.add("step", files="item")
    many.tensor(ck, "w", "float32", (8, 6), grid((8, 6), (2, 3)))
    mount = many.mount(ckpt)
    want = [{"box": {"offsets": list(e.offset), "sizes": list(box[1])},
             "rank": 0, "file": e.path, "offset": e.start,
             "size": e.length}
            for e, box in zip(ck.entries, ck.tensors["w"].boxes)]
    folder = mount.path / "step"

    def shards(path):
        lines = json.loads(xattr(folder / path, "shards"))
        return sorted(lines, key=lambda s: s["box"]["offsets"])

    assert shards("tensors/w") == want
    assert shards("npy/w.npy") == want
    assert shards("tensors/w[0:4,2:4]") == want[1:2]
    assert shards("tensors/w[3:5,0:3]") == [want[i] for i in (0, 1, 3, 4)]
    line = index(folder)["w"]
    assert sorted(line["shards"], key=lambda s: s["box"]["offsets"]) == want
    assert (line["shape"], line["dtype"], line["torch_dtype"], line["nbytes"],
            line["file"]) == ([8, 6], "F32", "float32", 192, "w")
    assert "holes" not in line and "overlap" not in line


# -- items


def test_every_dtype(many, ckpt):
    for era in ("2.6", "2.14"):
        ck = many.add(f"dtypes-{era}", era)
        for name, dtype in DTYPES.items():
            many.tensor(ck, name, name, (5, 3), grid((5, 3), (2, 2)))
            many.tensor(ck, f"{name}.scalar", name, ())
            if not dtype.quantized:
                many.tensor(ck, f"{name}.v3", name, (4,), rebuild="v3")
    ck = many.add("big-endian")
    for name in DTYPES:
        many.tensor(ck, name, name, (5, 3), grid((5, 3), (2, 2)),
                    byteorder="big")
    many.check(many.mount(ckpt))


def test_layouts_of_storages(many, ckpt):
    ck = many.add("layouts")
    for name, (shape, layout) in LAYOUTS.items():
        for dtype in ("float32", "bfloat16", "uint8", "complex128"):
            for order in ("little", "big"):
                many.tensor(ck, f"{name}.{dtype}.{order}", dtype, shape,
                            layout=layout, byteorder=order)
    for name, shape, strides in (("rows", (50, 4), (0, 1)),
                                 ("columns", (4, 50), (1, 0)),
                                 ("all", (6, 7, 8), (0, 0, 0)),
                                 ("middle", (3, 5, 4), (4, 0, 1))):
        small = [n if s else 1 for n, s in zip(shape, strides)]
        array = random_array(DTYPES["int32"], small, many.rng)
        many.tensor(ck, "expanded." + name, "int32", shape,
                    array=np.ascontiguousarray(np.broadcast_to(array, shape)),
                    layout=Layout(strides=strides))
    many.tensor(ck, "sharded", "float32", (9, 10), grid((9, 10), (2, 3)),
                items=[Item(layout=layout) for layout in (
                    Layout(), Layout(order=(1, 0)), Layout(offset=3),
                    Layout(strides=(1, 5)), Layout(strides=(4, 1)),
                    Layout(order=(1, 0), offset=1, tail=2))])
    many.check(many.mount(ckpt), slices=4)


def test_conjugate_and_negative_bits(many, ckpt):
    ck = many.add("bits")
    for name in ("complex64", "complex128", "complex32"):
        for conj, neg, order in itertools.product(
                (False, True), (False, True), ("little", "big")):
            many.tensor(ck, f"{name}.{conj}.{neg}.{order}", name, (5, 4),
                        conj=conj, neg=neg, byteorder=order,
                        layout=Layout(order=(1, 0), offset=2))
    for name in ("float64", "float32", "float16", "bfloat16", "int64",
                 "int32", "int16", "int8", "uint8"):
        many.tensor(ck, f"{name}.neg", name, (3, 4), neg=True)
        many.tensor(ck, f"{name}.neg.big", name, (3, 4), neg=True,
                    byteorder="big")
    many.tensor(ck, "imag", "float32", (6,), neg=True,
                layout=Layout(strides=(2,), offset=1))
    many.check(many.mount(ckpt), slices=4)


def test_rebuild_functions_and_archives(many, ckpt):
    ck = many.add("items")
    for era in ("1.13", "2.0", "2.6", "2.14"):
        for name, form in ITEMS.items():
            many.tensor(ck, f"{era}.{name}", "float32", (4, 3), **form,
                        era=era)
    many.check(many.mount(ckpt))


def test_archives_that_others_write(many, ckpt):
    """No zip64 end, a comment, storages that this tensor does not use."""
    ck = many.add("items")
    dtype = DTYPES["float32"]
    array = random_array(dtype, (4, 3), many.rng)
    pickle = Item(key="1").pickle(dtype, (4, 3), (3, 1), 48)
    entries = [Record("data/0", b"unused"), Record("data/1", array.tobytes()),
               Record("data/2", b""), Record("data.pkl", pickle)]
    for name, options in (("zip32", {"zip64_end": False}),
                          ("comment", {"comment": b"PK\5\6 is no end here"}),
                          ("both", {"zip64_end": False,
                                    "comment": b"x" * 999}),
                          ("plain", {})):
        many.tensor(ck, name, "float32", (4, 3), array=array,
                    items=[archive(entries, **options)])
    many.check(many.mount(ckpt))


def test_quantized(many, ckpt):
    """The bytes of the integers; sub-byte types are refused, alone."""
    ck = many.add("step")
    ck.tensor("quint4x2", "quint8", np.zeros((6, 5), "u1"))
    ck.tensors["quint4x2"].dtype = "quint4x2"
    for name in ("qint8", "quint8", "qint32"):
        many.tensor(ck, name, name, (6, 5), grid((6, 5), (2, 1)))
        many.tensor(ck, name + ".t", name, (6, 5), layout=Layout(order=(1, 0)))
    mount = many.mount(ckpt, expect_log=[r"\bquint4x2\b"])
    assert read_errno(mount.path / "step/tensors/quint4x2") in (
        errno.EOPNOTSUPP, errno.ENOENT)
    for _, name, dtype, array in many.tensors:
        check_tensor(mount.path / "step", name, dtype, array, many.rng)


@pytest.mark.filterwarnings("ignore")
def test_quantized_per_channel(many, ckpt):
    """Scales and zero points are storages of the same item."""
    import torch
    ck = many.add("step")
    tensor = torch.quantize_per_channel(
        torch.randn(6, 5), torch.rand(6) + 0.5,
        torch.zeros(6, dtype=torch.long), 0, torch.quint8)
    file = io.BytesIO()
    torch.save(tensor, file)
    many.tensor(ck, "w", "quint8", (6, 5), array=tensor.int_repr().numpy(),
                items=[Blob(file.getvalue())])
    many.check(many.mount(ckpt))


def test_scalars_and_empty_tensors(many, ckpt):
    for era in ("1.13", "2.6", "2.14"):
        ck = many.add(era, era)
        for shape in ((), (1,), (0,), (0, 4), (4, 0), (3, 0, 2), (1, 1, 1)):
            name = "x".join(map(str, shape)) or "scalar"
            many.tensor(ck, name, "float32", shape)
            many.tensor(ck, name + ".v3", "uint16", shape)
    many.check(many.mount(ckpt))


def test_empty_shards(many, ckpt):
    """Stored past the end, or at an offset that a real shard has too."""
    ck = many.add("step")
    rows = many.rng.integers(0, 99, (3, 5)).astype("<i4")
    many.tensor(ck, "past_end", "int32", (3, 5), grid((3, 5), (4, 1)),
                array=rows)
    real = grid((3, 5), (3, 1))
    for name, offsets in (("past_twice", (3, 0)), ("beyond", (9, 0)),
                          ("corner", (3, 5)), ("inside", (1, 0))):
        extra = [(offsets, (0, 5))] * 2
        many.tensor(ck, name + ".last", "int32", (3, 5), real + extra,
                    array=rows, items=[Item()] * 3 + [None] * 2)
        many.tensor(ck, name + ".first", "int32", (3, 5), extra + real,
                    array=rows, items=[None] * 2 + [Item()] * 3)
    many.tensor(ck, "only_empty", "int32", (0, 5), [((0, 0), (0, 5))] * 4)
    many.tensor(ck, "mesh", "int32", (3, 5), grid((3, 5), (4, 6)), array=rows)
    many.check(many.mount(ckpt), slices=4)


def test_empty_shard_that_took_the_real_one_away(many, ckpt):
    """Both have the key (name, offset); the writer kept only the empty one.

    What the real shard held is not in storage_data: EIO there, nowhere else.
    """
    ck = many.add("step", files="item")
    rows = many.rng.integers(0, 99, (4, 5)).astype("<i4")
    boxes = [((0, 0), (0, 5)), ((0, 0), (2, 5)), ((2, 0), (2, 5))]
    ck.tensor("w", "int32", rows, boxes, items=[Item(), None, Item()])
    many.tensor(ck, "good", "int32", (4, 5))
    mount = many.mount(ckpt, expect_log=[r"error: .*\bw: .*: byte \d+: "])
    folder = mount.path / "step/tensors"
    assert read_errno(folder / "w") == errno.EIO
    assert read_errno(folder / "w[0:1]") == errno.EIO
    assert read(folder / "w[2:4]") == rows[2:4].tobytes()
    many.tensors = [t for t in many.tensors if t[1] == "good"]
    check_tensor(mount.path / "step", *many.tensors[0][1:], many.rng)


def test_meshes_and_tilings(many, ckpt):
    """Grids as DTensor makes them, and random cuts that nobody plans."""
    ck = many.add("step", era="2.14")
    for number, (shape, counts) in enumerate((
            ((10,), (4,)), ((7, 5), (3, 1)), ((7, 5), (1, 4)),
            ((7, 5), (3, 4)), ((9, 6, 5), (2, 3, 2)), ((5, 4, 3), (8, 1, 2)),
            ((3, 2, 4, 5), (2, 2, 2, 2)), ((64, 96), (8, 8)))):
        for dtype in ("float32", "uint8"):
            many.tensor(ck, f"grid.{number}.{dtype}", dtype, shape,
                        grid(shape, counts))
    for number in range(24):
        ndim = 1 + number % 4
        shape = tuple(int(n) for n in many.rng.integers(2, 13, ndim))
        boxes = tiling(shape, many.rng, int(many.rng.integers(1, 24)))
        dtype = ("int64", "float16", "int8")[number % 3]
        items = [Item(layout=Layout(order=tuple(
            int(a) for a in many.rng.permutation(ndim)),
            offset=int(many.rng.integers(0, 4)))) for _ in boxes]
        many.tensor(ck, f"random.{number}", dtype, shape, boxes, items=items)
    many.check(many.mount(ckpt), slices=10)


# -- objects

PLAIN = {
    "int": 7, "negative": -3, "huge": 2 ** 62, "float": 0.1, "none": None,
    "true": True, "text": "h\u00e9llo \"\\\n\t\x01 \U0001f600", "empty": "",
    "betas": (0.9, 0.999), "list": [0, [1, []], ()],
    "dict": {"a": {"b": [{}]}},
    "keys": {2: "int", None: "none", True: "bool", 2.5: "float"},
    "numbers": [1e-300, 1e300, -0.0, 5e-324, 1.0, 100000.0, 1e16, 123456.789],
    "many": list(range(2001)), "map": {str(i): i for i in range(1001)},
}
OTHER = {
    "class": Instance(Global("mine", "Config"), {"lr": 0.1}),
    "function": Global("posixpath", "join"),
    "call": [1, Reduce(Global("os", "getpid"), ())],
    "deep": {"a": [{"b": Instance(Global("mine", "Thing"))}]},
    "bytes": b"raw", "numpy": Reduce(
        Global("numpy._core.multiarray", "scalar"), (b"x",)),
}


def test_objects(many, ckpt):
    """As stored; and as JSON, as Python writes it, if it is plain data."""
    ck = many.add("step")
    for protocol in (2, 4):
        for name, value in {**PLAIN, **OTHER}.items():
            ck.object(f"{name}.{protocol}", value, protocol=protocol)
    ordered = OrderedDict([("z", 1), ("a", 2)])
    ck.object("ordered", ordered)
    ck.object("size", size((3, 4)))
    ck.object("floats", [float("nan"), float("inf"), float("-inf")])
    ck.object("tensor", ([1], Item().rebuilt(
        DTYPES["float32"], (2,), (1,), 8)), storages={"0": bytes(8)})
    many.tensor(ck, "w", "float32", (2,))
    mount = many.mount(ckpt)
    folder = mount.path / "step/objects"
    data = {f"{n}.{p}" for n in PLAIN for p in (2, 4)} | {
        "ordered", "size", "floats"}
    assert set(os.listdir(folder)) == {n + ".pt" for n in ck.objects} | {
        n + ".json" for n in data}
    for entry in ck.entries:
        if entry.name in ck.objects:
            assert read(folder / f"{entry.name}.pt") == bytes(entry.blob)
    for name in sorted(data):
        value = {"ordered": ordered, "size": [3, 4], "floats": [
            float("nan"), float("inf"), float("-inf")]}.get(name)
        value = PLAIN[name[:-2]] if value is None else value
        got = read(folder / (name + ".json")).decode()
        assert json.dumps(json.loads(got)) == json.dumps(value), name
    for name in OTHER:
        assert read_errno(folder / f"{name}.2.json") == errno.ENOENT, name
    assert read_errno(folder / "tensor.json") == errno.ENOENT
    many.check(mount)


# -- an item of more than 4 GiB

ROWS, COLUMNS = 1_200_000, 1000


def big_payload(rng):
    """4.8 GB of float32: a hole, with rows written at both its ends."""
    head, tail = (random_array(DTYPES["float32"], (8, COLUMNS), rng)
                  for _ in "ab")
    hole = ROWS * COLUMNS * 4 - head.nbytes - tail.nbytes
    return head, tail, Blob(head.tobytes(), Zeros(hole), tail.tobytes())


def daemon_status(pid, key):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(rf"{key}:\s+(\d+) kB", file.read())[1]) * 1024


def daemon_rchar(pid):
    with open(f"/proc/{pid}/io") as file:
        return int(re.search(r"rchar: (\d+)", file.read())[1])


def test_items_over_4_gib(many, ckpt):
    """zip64 sizes and offsets; a few rows cost a few rows."""
    ck = many.add("step")
    head, tail, payload = big_payload(many.rng)
    shape = (ROWS, COLUMNS)
    broad = np.broadcast_to(np.float32(0), shape)
    dtype = DTYPES["float32"]
    ck.tensor("big", "float32", broad,
              items=[Item(payload=payload).build(dtype, broad)])
    many.tensor(ck, "after", "float32", (4, 5), grid((4, 5), (2, 1)),
                ranks=[0, 0])
    array = random_array(dtype, (6, 3), many.rng)
    pickle = Item(key="1").pickle(dtype, (6, 3), (3, 1), array.nbytes)
    far = archive([Record("data.pkl", pickle),
                   Record("data/0", Zeros(5 << 30)),
                   Record("data/1", array.tobytes())])
    many.tensor(ck, "far", "float32", (6, 3), array=array, items=[far],
                ranks=[1])
    ck.write()
    mount = ckpt(many.root)
    folder = mount.path / "step/tensors"
    assert os.stat(folder / "big").st_size == ROWS * COLUMNS * 4
    read_before, start = daemon_rchar(mount.pid), time.monotonic()
    assert read(folder / f"big[{ROWS - 4}:]") == tail[-4:].tobytes()
    assert read(folder / "big[2:6]") == head[2:6].tobytes()
    assert read(folder / f"big[{ROWS // 2}]") == bytes(COLUMNS * 4)
    part = read(folder / f"big[{ROWS - 10}:,990:]")
    assert part == bytes(80) + np.ascontiguousarray(tail[:, 990:]).tobytes()
    with open(folder / "big", "rb") as file:
        file.seek(-tail.nbytes - 100, os.SEEK_END)
        assert file.read() == bytes(100) + tail.tobytes()
    npy = np.load(mount.path / "step/npy/big.npy", mmap_mode="r")
    assert npy[-3:].tobytes() == tail[-3:].tobytes()
    assert npy[:3].tobytes() == head[:3].tobytes()
    assert time.monotonic() - start < mounting.patience(5)
    assert daemon_rchar(mount.pid) - read_before < 64 << 20
    if not mounting.SANITIZER:
        assert daemon_status(mount.pid, "VmHWM") < 128 << 20
    many.tensors = [t for t in many.tensors if t[1] != "big"]
    many.check(mount)


# -- items that cannot be read


def test_an_unreadable_item_fails_alone(many, ckpt):
    ck = many.add("step")
    good = many.tensor(ck, "good", "float32", (4, 3))
    items = unreadable()
    for name, (item, _) in items.items():
        ck.tensor("bad." + name, "float32", good, items=[item])
        ck.tensor("half." + name, "float32", np.concatenate((good, good)),
                  [((0, 0), (4, 3)), ((4, 0), (4, 3))], items=[item, Item()],
                  ranks=[0, 0])
    transform = {"transform_descriptors": ["stream.zstd/1"]}
    ck.tensor("bad.zstd", "float32", good)
    ck.entries[-1].extra = transform
    expected = {"bad." + n: e for n, (_, e) in items.items()}
    expected["bad.zstd"] = (errno.EIO,)
    patterns = [rf"error: (.*[ /])?{re.escape(name)}: "
                rf"(.*/)?__0_0\.distcp: byte \d+: \S" for name in expected]
    patterns += [rf"error: (.*[ /])?half\.{name}: " for name in items]
    mount = many.mount(ckpt, expect_log=patterns)
    folder = mount.path / "step"
    for name, errnos in expected.items():
        for path in (f"tensors/{name}", f"npy/{name}.npy",
                     f"tensors/{name}[1:2]", f"tensors/{name}"):
            assert read_errno(folder / path) in errnos, path
        assert os.stat(folder / "tensors" / name).st_size == 48
    for name in items:
        assert read(folder / f"tensors/half.{name}[4:8]") == good.tobytes()
        assert read_errno(folder / f"tensors/half.{name}[3:8]") != 0, name
        assert read_errno(folder / f"tensors/half.{name}") != 0, name
    check_tensor(folder, "good", "float32", good, many.rng)
    for pattern in patterns:
        assert len(wait_errors(mount, pattern, 1)) == 1, pattern


def test_an_unknown_dtype_fails_alone(many, ckpt):
    """Its size is not known, so there may be no file; the others are."""
    ck = many.add("step")
    good = many.tensor(ck, "good", "float32", (4, 3))
    ck.tensor("bad", "float32", good)
    ck.tensors["bad"].dtype = "float3_e1m1"
    ck.write()
    mount = ckpt(many.root, expect_log=[r"bad"])
    code = read_errno(mount.path / "step/tensors/bad")
    assert code in (errno.EOPNOTSUPP, errno.ENOENT), code
    check_tensor(mount.path / "step", "good", "float32", good, many.rng)
