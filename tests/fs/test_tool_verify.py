"""ckptfs verify, against zipfile and PyTorch on the same bytes."""

import io
import os
import pickle
import random
import re
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

import util
from conftest import DATA
from dcp import Item, Record, Zeros, archive
from dcp.archive import records
from dcp.boxes import grid
from dcp.checkpoint import Checkpoint
from dcp.forms import ITEMS, LAYOUTS
from dcp.items import DTYPES
from dcp.store import Store
from tooling import BAD, FAILED, check_lost_output, check_usage, tool  # noqa

ROOT = DATA / "fixtures"
# Those with .metadata whose items are archives, as they stand in the files.
SOUND = sorted(str(path.parent.relative_to(ROOT))
               for path in ROOT.glob("*/*/.metadata")
               if (path.parent / "__0_0.distcp").exists()
               and path.parent.name not in (
                   "zstd", "ext_chain_inc_zstd",
                   "serialization_format_safetensors"))
LAST = re.compile(r"(\d+) tensors, (\d+) bytes, (\d+) hashed, "
                  r"(\d+) not recorded$")
LINE = re.compile(r"(.*?)(\[[\d:,]*\])?: (?:(\S+): byte (\d+): )?"
                  r"([a-z]+): (.*)")


def run(tool, *args, status=0, notes=False):
    """(faults, figures): lines as (name, box, file, offset, kind, reason)."""
    done = tool("verify", *args, status=status)
    assert notes or done.stderr == "", done.stderr
    *lines, last = done.stdout.splitlines()
    assert (status == 0) == (not lines)
    return ([LINE.fullmatch(line).groups() for line in lines],
            tuple(map(int, LAST.match(last).groups())))


def flip(path, offset, bit=0):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def tensors_of(folder):
    state = util.read_metadata(folder / ".metadata").state_dict_metadata
    return {n: m for n, m in state.items() if hasattr(m, "chunks")}


def size_of(tensors):
    return sum(m.size.numel() * m.properties.dtype.itemsize
               for m in tensors.values())


def payload_of(folder, info, record="data/0"):
    """Offset and size of a record of an item, in its file."""
    data = util.item_bytes(folder, info)
    with zipfile.ZipFile(io.BytesIO(data)) as item:
        entry = item.getinfo("archive/" + record)
    name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
    return (info.offset + entry.header_offset + 30 + name + extra,
            entry.file_size)


def as_slice(offsets, sizes, shape):
    return "[%s]" % ",".join(
        ":" if o == 0 and s == n else "%d:%d" % (o, o + s)
        for o, s, n in zip(offsets, sizes, shape))


# What is sound

@pytest.mark.parametrize("name", SOUND)
def test_sound(tool, name):
    folder = ROOT / name
    for info in util.items_of(folder).values():
        data = io.BytesIO(util.item_bytes(folder, info))
        assert zipfile.ZipFile(data).testzip() is None
    tensors = tensors_of(folder)
    size = size_of(tensors)
    count = len(tensors)
    assert run(tool, folder) == ([], (count, size, count, 0))
    assert run(tool, "--quick", folder) == ([], (count, size, 0, 0))
    objects, summary = tool.json("verify", folder)
    assert objects == []
    assert summary == {"tensors": count, "nbytes": size, "hashed": count,
                       "not_recorded": 0, "faults": 0}


def test_every_form_of_item(tool, tmp_path):
    """What the independent writer makes, of all releases and in all forms."""
    store = Store(tmp_path / "store")
    for era in ("1.13", "2.0", "2.4", "2.6", "2.7", "2.14"):
        store.basic(store.add(era, era))
    forms = store.add("forms")
    for name, (shape, layout) in LAYOUTS.items():
        store.tensor(forms, name, "int32", shape, layout=layout)
    for name, fields in ITEMS.items():
        store.tensor(forms, name, "float32", (6, 5), **fields)
    bare = {"forms": 1}  # no_crc
    for name, ck in store.checkpoints.items():
        ck.write()
        faults, figures = run(tool, ck.folder)
        count = bare.get(name, 0)
        assert faults == [], name
        assert figures[2:] == (figures[0] - count, count), name


@pytest.mark.parametrize("alignment", [8, 100, 4096])
def test_alignments_of_torch(tool, tmp_path, alignment):
    from torch.utils.serialization import config
    before = config.save.storage_alignment
    config.save.storage_alignment = alignment
    try:
        dcp.save({"a": torch.ones(9, 3), "e": torch.ones(0, 4), "s": (1, 2),
                  "t": (torch.ones(5), torch.ones(1))},
                 checkpoint_id=tmp_path / "ck", no_dist=True)
    finally:
        config.save.storage_alignment = before
    assert run(tool, tmp_path / "ck")[1][2] == 2


def test_no_checksums(tool, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        dcp.save({"a": torch.ones(9, 3), "o": (1, 2)},
                 checkpoint_id=tmp_path / "ck", no_dist=True)
    finally:
        torch.serialization.set_crc32_options(True)
    assert run(tool, tmp_path / "ck") == ([], (1, 108, 0, 1))
    info = util.items_of(tmp_path / "ck")["a", (0, 0)]
    offset, _ = payload_of(tmp_path / "ck", info)
    flip(tmp_path / "ck/__0_0.distcp", offset)
    assert run(tool, tmp_path / "ck") == ([], (1, 108, 0, 1))
    # Its structure is known, all the same.
    flip(tmp_path / "ck/__0_0.distcp", offset - 1)
    assert run(tool, tmp_path / "ck", status=BAD)[0][0][4] == "header"


def rewrite(folder, edit):
    """Let `edit` make another item of each, and say where they now are."""
    metadata = util.read_metadata(folder / ".metadata")
    files = {}
    for key, info in metadata.storage_data.items():
        data = edit(util.item_bytes(folder, info))
        out = files.setdefault(info.relative_path + ".new", bytearray())
        info.relative_path += ".new"
        info.offset, info.length = len(out), len(data)
        out += data
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


@pytest.mark.parametrize("how", ["plain", "sorted", "comment", "moved"])
def test_items_of_another_tool(tool, store, how):
    """Packed again by zipfile: nothing of what only PyTorch does is asked."""
    folder = store("torch-2.6.0/per_rank_keys")

    def pack(data):
        out = io.BytesIO()
        old = zipfile.ZipFile(io.BytesIO(data))
        with zipfile.ZipFile(out, "w") as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry.filename))
            if how == "sorted":
                new.filelist.reverse()
            elif how == "comment":
                new.comment = b"packed again"
            elif how == "moved":
                new.fp.write(b"nothing")
                new.start_dir += 7
        return out.getvalue()

    rewrite(folder, pack)
    assert run(tool, folder)[1] == (5, 40, 5, 0)
    info = util.items_of(folder)["rank1", (0,)]
    offset, size = payload_of(folder, info)
    flip(folder / info.relative_path, offset + size - 1)
    faults, _ = run(tool, folder, status=BAD)
    assert faults == [("rank1", "[:]", info.relative_path, str(offset), "crc",
                       "record does not match its checksum: archive/data/0")]


# What is damaged

@pytest.mark.parametrize("name", ["torch-2.14.1/dtensor4",
                                  "torch-2.6.0/dtensor4_threads3"])
def test_elements(tool, store, name):
    """One bit of every shard's elements in turn."""
    folder = store(name)
    tensors = tensors_of(folder)
    rng = random.Random(4)
    for (key, offsets), info in util.items_of(folder).items():
        if offsets is None:
            continue
        begin, size = payload_of(folder, info)
        if size == 0:
            continue
        place = begin + rng.randrange(size), rng.randrange(8)
        flip(folder / info.relative_path, *place)
        faults, figures = run(tool, folder, status=BAD)
        chunk = next(c for c in tensors[key].chunks
                     if tuple(c.offsets) == offsets)
        box = as_slice(chunk.offsets, chunk.sizes, tensors[key].size)
        assert faults == [(
            key, box if offsets else None, info.relative_path, str(begin),
            "crc", "record does not match its checksum: archive/data/0")]
        assert figures[2] == len(tensors)
        assert run(tool, "--quick", folder)[0] == []
        flip(folder / info.relative_path, *place)
    assert run(tool, folder)[0] == []


def test_json(tool, store):
    folder = store("torch-2.14.1/dtensor4")
    items = util.items_of(folder)
    (key, offsets), info = next((k, i) for k, i in items.items()
                                if k[1] and k[1][0] > 0 and
                                payload_of(folder, i)[1])
    begin, _ = payload_of(folder, info)
    flip(folder / info.relative_path, begin)
    faults, summary = tool.json("verify", folder, status=BAD)
    chunk = next(c for c in tensors_of(folder)[key].chunks
                 if tuple(c.offsets) == offsets)
    assert faults == [{
        "name": key, "box": {"offsets": list(offsets),
                             "sizes": list(chunk.sizes)},
        "file": info.relative_path, "offset": begin, "kind": "crc",
        "reason": "record does not match its checksum: archive/data/0"}]
    assert summary["faults"] == 1


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_quick_reads_all_but_elements(tool, store, quick):
    folder = store("torch-2.14.1/per_rank_keys")
    info = util.items_of(folder)["rank2", (0,)]
    path = folder / info.relative_path
    for record in ("data.pkl", "version", "byteorder", ".format_version",
                   ".data/serialization_id"):
        begin, _ = payload_of(folder, info, record)
        for offset in begin - 1, begin:
            flip(path, offset)
            faults, _ = run(tool, *quick, folder, status=BAD)
            assert {f[0] for f in faults} == {"rank2"}
            kinds = {f[4] for f in faults}
            assert kinds & {"crc"} if offset == begin else kinds == {"header"}
            flip(path, offset)


def test_objects(tool, store):
    folder = store("torch-2.14.1/dtensor4")
    key, info = next((k, i) for k, i in util.items_of(folder).items()
                     if k[1] is None)
    begin, _ = payload_of(folder, info, "data.pkl")
    flip(folder / info.relative_path, begin + 2)
    faults, figures = run(tool, folder, status=BAD)
    assert [f[:5] for f in faults] == [
        (key[0], None, info.relative_path, str(begin), "crc")]
    # They are not among the tensors.
    assert figures[0] == figures[2] == len(tensors_of(folder))
    assert "box" not in tool.json("verify", folder, status=BAD)[0][0]


def test_files_that_are_cut_or_gone(tool, store):
    folder = store("torch-2.14.1/dtensor4")
    items = util.items_of(folder)
    name = "__3_0.distcp"
    held = {k: i for k, i in items.items() if i.relative_path == name}
    last = max(held, key=lambda k: held[k].offset)
    os.truncate(folder / name, (folder / name).stat().st_size - 1)
    faults, _ = run(tool, folder, status=BAD, notes=True)
    assert [(f[0], int(f[3]), f[4]) for f in faults] == [
        (last[0], held[last].offset, "size")]
    os.truncate(folder / name, 0)
    faults, _ = run(tool, folder, status=BAD, notes=True)
    assert sorted((f[0], int(f[3]), f[4]) for f in faults) == sorted(
        (k[0], i.offset, "size") for k, i in held.items())
    os.unlink(folder / name)
    faults, figures = run(tool, folder, status=BAD, notes=True)
    assert sorted((f[0], int(f[3]), f[4]) for f in faults) == sorted(
        (k[0], i.offset, "missing") for k, i in held.items())
    tensors = tensors_of(folder)
    whole = set(tensors) - {k[0] for k in held}
    assert figures[2] == len(whole)


def test_items_that_were_exchanged(tool, store):
    """Right items at the wrong place: only data.pkl tells them apart."""
    folder = store("torch-2.14.1/dtypes")
    metadata = util.read_metadata(folder / ".metadata")
    keys = {k.fqn: k for k in metadata.storage_data if k.offset is not None}
    tensors = tensors_of(folder)

    def place(name):
        info = metadata.storage_data[keys[name]]
        return info.offset, info.length

    def exchange(a, b):
        a, b = (metadata.storage_data[keys[n]] for n in (a, b))
        (a.offset, a.length, b.offset, b.length) = (b.offset, b.length,
                                                    a.offset, a.length)

    def one_of(dtype, shape):
        return next(n for n, m in tensors.items()
                    if m.properties.dtype == dtype and m.size == shape)

    names = sorted(tensors)
    a = names[0]
    b = next(n for n in names if tensors[n].size == tensors[a].size and
             tensors[n].properties.dtype != tensors[a].properties.dtype)
    exchange(a, b)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    faults, _ = run(tool, folder, status=BAD)
    assert sorted((f[0], f[4]) for f in faults) == sorted(
        [(a, "dtype"), (b, "dtype")])
    exchange(a, b)
    c = next((x, y) for x in names for y in names
             if tensors[x].properties.dtype == tensors[y].properties.dtype and
             tensors[x].size != tensors[y].size)
    exchange(*c)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    faults, _ = run(tool, folder, status=BAD)
    assert sorted((f[0], f[4]) for f in faults) == sorted(
        (n, "shape") for n in c)


def test_holes_and_overlaps(tool, tmp_path):
    tensor = torch.arange(24.).reshape(6, 4)
    util.save_chunks(tmp_path / "ck", {
        "hole": (tensor, [((0, 0), (2, 4)), ((3, 0), (3, 4))]),
        "twice": (tensor, [((0, 0), (4, 4)), ((3, 0), (3, 4))])})
    faults, figures = run(tool, tmp_path / "ck", status=BAD, notes=True)
    assert sorted(f[:5] for f in faults) == [
        ("hole", "[2:3,:]", None, None, "hole"),
        ("twice", None, None, None, "overlap")]
    assert figures == (2, 192, 2, 0)
    faults, _ = tool.json("verify", tmp_path / "ck", status=BAD)
    hole = next(f for f in faults if f["kind"] == "hole")
    assert hole["box"] == {"offsets": [2, 0], "sizes": [1, 4]}
    assert "file" not in hole and "offset" not in hole


def test_bytes_that_belong_to_nothing(tool, store):
    folder = store("torch-2.14.1/per_rank_keys")
    with open(folder / "__2_0.distcp", "ab") as file:
        file.write(b"old bytes")
    faults, figures = run(tool, folder, notes=True)
    assert faults == [] and figures[2] == 5
    size = (folder / "__2_0.distcp").stat().st_size
    assert "__2_0.distcp: 9 bytes from byte %d on" % (size - 9) in \
        tool("verify", folder).stderr


# The metadata

@pytest.mark.parametrize("marker", [".metadata", "__2.metadata"])
def test_metadata_that_is_refused(tool, store, marker):
    folder = store("torch-2.14.1/" + ("per_rank_keys" if marker == ".metadata"
                                      else "dtensor4_rank_local"))
    size = (folder / marker).stat().st_size
    for cut in 0, 1, 2, 500, size - 1:
        os.truncate(folder / marker, cut)
        done = tool("verify", folder, status=BAD)
        fault, last = done.stdout.splitlines()
        assert re.fullmatch(r"%s: byte \d+: metadata: .+" % re.escape(marker),
                            fault)
        assert last == "0 tensors, 0 bytes, 0 hashed, 0 not recorded"
        faults, summary = tool.json("verify", folder, status=BAD)
        assert faults[0]["file"] == marker and faults[0]["offset"] <= cut
        assert faults[0]["kind"] == "metadata" and summary["faults"] == 1


# Other formats

def test_safetensors(tool, tmp_path):
    tensors = {"a": torch.ones(3, 4), "b": torch.arange(5)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    for source in path, tmp_path:
        assert run(tool, source) == ([], (2, 48 + 40, 0, 2))
    os.truncate(path, path.stat().st_size - 1)
    done = tool("verify", path, status=BAD)
    assert re.match(r"model\.safetensors: byte \d+: metadata: ", done.stdout)
    flip(path, 3)
    tool("verify", path, status=BAD)


@pytest.mark.parametrize("name", ["hf_rank0", "hf_sharded4_indexed"])
def test_hugging_face(tool, store, name):
    folder = store("torch-2.14.1/" + name)
    figures = run(tool, folder)[1]
    assert figures[2] == 0 and figures[3] == figures[0] > 0


def test_hugging_face_with_a_hole(tool, store):
    folder = store("torch-2.14.1/hf_sharded_lossy_two_shards_per_rank")
    faults, _ = run(tool, folder, status=BAD, notes=True)
    assert {f[4] for f in faults} == {"hole"} and len(faults) == 2


def test_safetensors_in_distcp(tool, store):
    """No checksums, but a header that must fit the metadata."""
    folder = store("torch-2.14.1/serialization_format_safetensors")
    path = folder / "__0_0.distcp"
    assert run(tool, folder) == ([], (2, 88, 0, 2))
    data = path.read_bytes()
    info = util.items_of(folder)["w", (0, 0)]
    path.write_bytes(data.replace(b'"shape":[3,4]', b'"shape":[4,3]'))
    faults, _ = run(tool, folder, status=BAD)
    assert [(f[0], int(f[3]), f[4]) for f in faults] == [
        ("w", info.offset, "shape")]
    path.write_bytes(data.replace(b'"dtype":"I64"', b'"dtype":"U64"'))
    faults, _ = run(tool, folder, status=BAD)
    assert [(f[0], f[4]) for f in faults] == [("i", "dtype")]
    path.write_bytes(data[:info.offset] + b"\xff" * 8 +
                     data[info.offset + 8:])
    faults, figures = run(tool, folder, status=BAD)
    assert {f[0] for f in faults} == {"w", "i"} and figures[3] == 0
    path.write_bytes(data[:-1])
    faults, _ = run(tool, folder, status=BAD)
    assert "w" in {f[0] for f in faults}


def test_behind_stream_extensions(tool, store):
    folder = store("torch-2.14.1/zstd")
    figures = run(tool, folder)[1]
    assert figures[2] == figures[0] > 0
    path = folder / "__0_0.distcp"
    data = path.read_bytes()
    for key, info in util.items_of(folder).items():
        # Much at once: of a little, all copies of a name may change, and
        # nobody reads most of them.
        for place in range(info.offset, info.offset + info.length - 64, 50):
            other = bytes(byte ^ 0xff for byte in data[place:place + 64])
            path.write_bytes(data[:place] + other + data[place + 64:])
            done = tool("verify", folder, status=BAD)
            *faults, _ = done.stdout.splitlines()
            assert {line.split(":")[0].split("[")[0] for line in faults} == {
                key[0]}


def test_unknown_stream_extension(tool, store):
    folder = store("torch-2.14.1/ext_chain_inc_zstd")
    faults, figures = run(tool, folder, status=BAD)
    assert [f[4] for f in faults] == ["unread"] and figures[2:] == (0, 0)


# Size

class ZeroRecord(Record):
    """A record of zeros with the checksum that it has."""

    def crc(self):
        if not isinstance(self.data, Zeros):
            return super().crc()
        crc, chunk, left = 0, bytes(1 << 24), len(self.data)
        while left:
            part = min(left, len(chunk))
            crc = zlib.crc32(chunk[:part], crc)
            left -= part
        return crc


def zero_item(rows):
    """float32 of `rows` rows of 1 KiB, all zero."""
    item = Item(payload=Zeros(rows << 10))
    data = item.pickle(DTYPES["float32"], (rows, 256), (256, 1), rows << 10)
    entries = [ZeroRecord(r.name, r.data)
               for r in records(data, {"0": Zeros(rows << 10)})]
    return archive(entries)


@pytest.mark.timeout(300)
def test_more_than_4_gib(tool, tmp_path):
    """Large and far records have other headers; and it takes no memory."""
    rows = (4 << 20) + 5000
    ck = Checkpoint(tmp_path / "ck")
    array = np.lib.stride_tricks.as_strided(np.zeros(1, "<f4"), (rows, 256),
                                            (0, 0))
    item = zero_item(rows)
    marks = dict(item.marks)
    ck.tensor("huge", "float32", array, items=[item])
    ck.write()
    path, = (tmp_path / "ck").glob("*.distcp")
    assert tool.memory("verify", tmp_path / "ck") < 64 << 20
    assert run(tool, tmp_path / "ck") == ([], (1, rows << 10, 1, 0))
    # As PyTorch has it: the second size is not known yet.
    extra = marks["local:data/0"] + 30 + len("archive/data/0")
    with open(path, "r+b") as file:
        file.seek(extra + 12)
        assert int.from_bytes(file.read(8), "little") == rows << 10
        file.seek(extra + 12)
        file.write(bytes(8))
    assert run(tool, tmp_path / "ck")[0] == []
    begin = marks["data:data/0"]
    flip(path, begin + (3 << 30) + 17)
    faults, _ = run(tool, tmp_path / "ck", status=BAD)
    assert [f[:5] for f in faults] == [
        ("huge", "[:,:]", path.name, str(begin), "crc")]
    assert run(tool, "--quick", tmp_path / "ck")[0] == []
    flip(path, begin + (3 << 30) + 17)
    flip(path, marks["descriptor:data/0"] + 20)
    faults, _ = run(tool, "--quick", tmp_path / "ck", status=BAD)
    assert [f[3:5] for f in faults] == [
        (str(marks["descriptor:data/0"]), "header")]


def test_many_items(tool, tmp_path):
    """All threads at once: everything that is wrong is said, once."""
    tensor = torch.arange(400. * 16).reshape(400, 16)
    folder = util.save_chunks(tmp_path / "ck", {
        "t%d" % i: (tensor, grid((400, 16), (40, 2))) for i in range(20)},
        files=7)
    items = util.items_of(folder)
    rng = random.Random(6)
    bad = rng.sample(sorted(items), 300)
    for key in bad:
        begin, size = payload_of(folder, items[key])
        flip(folder / items[key].relative_path, begin + rng.randrange(size))
    faults, figures = run(tool, folder, status=BAD)
    assert sorted((f[0], f[2], int(f[3])) for f in faults) == sorted(
        (k[0], items[k].relative_path, payload_of(folder, items[k])[0])
        for k in bad)
    assert figures == (20, 20 * 400 * 16 * 4, 20, 0)


# The command line

def test_usage(tool):
    check_usage(tool, "verify")
    check_usage(tool, "verify", "a", "b")
    check_usage(tool, "verify", "--nonsense", "a")
    tool("verify", "nowhere", status=FAILED)
    text = tool.quiet("verify", "--help")
    for word in ("--quick", "--json", "not recorded", "hashed", "Objects",
                 "crc", "structure", "header", "size", "shape", "dtype",
                 "missing", "overlap", "hole", "unread", "io", "metadata"):
        assert word in text
    assert all(len(line) < 81 for line in text.splitlines())


def test_options_behind_operands(tool, store):
    folder = store("torch-2.14.1/per_rank_keys")
    assert tool("verify", folder, "--quick").stdout == \
        tool("verify", "--quick", "--", folder).stdout


def test_lost_output(tool):
    check_lost_output(tool, "verify", ROOT / SOUND[0])


def test_unusual_names(tool, tmp_path):
    """One line a fault, whatever a tensor is called."""
    names = ["a\nb: crc: x", "\x1b[31mred", "u\u00fc", "\ud800"]
    util.save_chunks(tmp_path / "ck", {
        n: (torch.ones(4), [((0,), (4,))]) for n in names})
    os.truncate(tmp_path / "ck/__0_0.distcp", 0)
    done = tool("verify", tmp_path / "ck", status=BAD)
    assert len(done.stdout.splitlines()) == len(names) + 1
    assert "\x1b" not in done.stdout
    faults, _ = tool.json("verify", tmp_path / "ck", status=BAD)
    assert {f["name"] for f in faults} == set(names[:3]) | {"\ufffd" * 3}
