"""Data files that were cut or changed after they were written.

What is damaged fails alone and says so once; whatever is read without an
error has the right bytes. Only a change of the payload itself goes unseen.
"""

import collections
import errno
import json
import os
import re
import shutil

import numpy as np
import pytest

from dcp import DTYPES, Blob, Checkpoint, Item, Layout, random_array
from dcp.boxes import grid
from dcp.views import UNREADABLE, read, read_errno, wait_errors

SEED = 5
LINE = r"error: .*__0_0\.distcp: byte \d+: \S"


class Original:
    """A small checkpoint of three neighbours, and copies of it to damage."""

    def __init__(self, root, era="2.14", dtype="float32", **item):
        self.root = root
        self.rng = np.random.default_rng(SEED)
        self.ck = Checkpoint(root.parent / "original", era)
        self.arrays = {}
        for name in ("before", "middle", "after"):
            self.arrays[name] = self.ck.tensor(name, dtype, random_array(
                DTYPES[dtype], (4, 3), self.rng), ranks=[0], **item)
        self.ck.write()
        self.data = read(self.ck.folder / "__0_0.distcp")
        self.entry = {e.name: e for e in self.ck.entries}
        self.copies = []

    def copy(self, name, data):
        """A checkpoint with other contents of its data file."""
        folder = self.root / name
        folder.mkdir(parents=True)
        shutil.copy(self.ck.folder / ".metadata", folder)
        (folder / "__0_0.distcp").write_bytes(data)
        self.copies.append(name)
        return name

    def place(self, mark, tensor="middle"):
        entry = self.entry[tensor]
        return entry.start + entry.blob.marks[mark]

    def outcome(self, mount, copy, name):
        """0 or the errno that all ways to read give; the bytes are right."""
        folder = mount.path / copy
        code = read_errno(folder / "tensors" / name)
        assert code == 0 or code in UNREADABLE, (copy, name, code)
        if name == "middle":
            for path in (f"npy/{name}.npy", f"tensors/{name}[1:3]"):
                assert read_errno(folder / path) == code, (copy, path)
        return code


def count_lines(mount, count):
    """(copy, tensor) -> number of error lines about it, of `count` in all."""
    lines = collections.Counter()
    for line in wait_errors(mount, "", count):
        copy = re.search(r"([\w.-]+)/(\w+|__0_0\.distcp): ", line)[1]
        lines[copy, re.search(r"\b(before|middle|after): ", line)[1]] += 1
    return lines


def check_copies(mount, original, must_work):
    """must_work(copy, name) -> True, False, or None if both are right."""
    wrong = []
    for copy in original.copies:
        for name, array in original.arrays.items():
            code = original.outcome(mount, copy, name)
            want = must_work(copy, name)
            if want is not None and (code == 0) != want:
                wrong.append((copy, name, code))
            elif code == 0 and array.tobytes() != \
                    read(mount.path / copy / "tensors" / name):
                wrong.append((copy, name, "other bytes"))
    assert not wrong, (len(wrong), wrong[:20])
    assert mount.proc.poll() is None


@pytest.fixture
def original(tmp_path):
    (tmp_path / "store").mkdir()
    return Original(tmp_path / "store")


def test_data_file_cut_at_many_points(original, ckpt):
    """Each item is whole, or EIO; one line each."""
    entries = original.entry
    ends = {name: e.start + e.length for name, e in entries.items()}
    cuts = {0, 1, 3, 4, 29, 30, 31, len(original.data) - 1}
    for mark in original.ck.entries[1].blob.marks:
        place = original.place(mark)
        cuts |= {place - 1, place, place + 1, place + 3}
    cuts |= set(range(0, len(original.data), 97))
    cuts |= {end + d for end in ends.values() for d in (-99, -98, -43, -42,
                                                        -23, -22, -21, -1, 0)}
    for cut in sorted(cuts):
        original.copy(f"cut-{cut:05}", original.data[:cut])
    mount = ckpt(original.root, expect_log=[LINE])
    check_copies(mount, original,
                 lambda copy, name: ends[name] <= int(copy[4:]))
    lost = {(copy, name) for copy in original.copies for name in ends
            if ends[name] > int(copy[4:])}
    assert count_lines(mount, len(lost)) == dict.fromkeys(lost, 1)


@pytest.mark.parametrize("form", (
    {}, {"dtype": "complex64", "conj": True, "layout": Layout(order=(1, 0))},
    {"dtype": "float8_e4m3fn"}), ids=("v2", "conj", "v3"))
def test_every_bit_of_an_archive(tmp_path, ckpt, form):
    """A flip anywhere but in the payload: an error, or the right bytes.

    All bits of data.pkl; one of each other byte, of which the forms differ
    in none.
    """
    (tmp_path / "store").mkdir()
    original = Original(tmp_path / "store", **form)
    middle = original.entry["middle"]
    payload = range(original.place("data:data/0"),
                    original.place("descriptor:data/0"))
    pickle = range(original.place("data:data.pkl"),
                   original.place("descriptor:data.pkl"))
    for at in range(middle.start, middle.start + middle.length):
        bits = [] if form else [int(original.rng.integers(8))]
        bits = range(8) if at in pickle else bits
        for bit in [] if at in payload else bits:
            data = bytearray(original.data)
            data[at] ^= 1 << bit
            original.copy(f"flip-{at:05}-{bit}", bytes(data))
    mount = ckpt(original.root, expect_log=[LINE])
    check_copies(mount, original,
                 lambda copy, name: None if name == "middle" else True)
    failed = {(copy, "middle") for copy in original.copies
              if read_errno(mount.path / copy / "tensors/middle")}
    assert count_lines(mount, len(failed)) == dict.fromkeys(failed, 1)


def test_bytes_of_the_structures(original, ckpt):
    """Whole fields set to extremes, in what is needed to find the data."""
    places = {}
    for mark in original.entry["middle"].blob.marks:
        if not mark.startswith(("data:", "descriptor:")):
            places[mark] = original.place(mark)
    for mark, place in places.items():
        for offset in range(0, 46, 2):
            for value in (b"\0\0", b"\xff\xff"):
                data = bytearray(original.data)
                data[place + offset:place + offset + 2] = value
                if data[place + offset:] == original.data[place + offset:]:
                    continue
                if touches_payload(original, place + offset):
                    continue
                kind = mark.replace("/", "_").replace(":", "-")
                original.copy(f"{kind}-{offset:02}-{value.hex()}",
                              bytes(data))
    mount = ckpt(original.root, expect_log=[LINE])
    check_copies(mount, original, lambda copy, name: None if (
        name == "middle" or copy.startswith(("end", "locator"))) else True)


def touches_payload(original, at):
    return any(original.place("data:data/0", name) <= at + 1
               and at < original.place("descriptor:data/0", name)
               for name in original.arrays)


def test_payload_flips_are_read_as_they_are(original, ckpt):
    """Reads do not check hashes: what is stored is what one gets."""
    at = original.place("data:data/0") + 17
    data = bytearray(original.data)
    data[at] ^= 0x10
    original.copy("payload", bytes(data))
    mount = ckpt(original.root)
    want = bytearray(original.arrays["middle"].tobytes())
    want[17] ^= 0x10
    assert read(mount.path / "payload/tensors/middle") == bytes(want)


def test_zeroed_blocks(original, ckpt):
    """A file that lost a block, as after a crash."""
    ends = {}
    for begin in range(0, len(original.data), 256):
        data = bytearray(original.data)
        data[begin:begin + 256] = bytes(len(data[begin:begin + 256]))
        original.copy(f"zero-{begin:05}", bytes(data))
    for name, entry in original.entry.items():
        ends[name] = (entry.start, entry.start + entry.length)

    def in_payload(copy, name):
        begin = int(copy[5:])
        return begin < original.place("descriptor:data/0", name) and \
            begin + 256 > original.place("data:data/0", name)

    mount = ckpt(original.root, expect_log=[LINE])
    for copy in original.copies:
        begin = int(copy[5:])
        for name, array in original.arrays.items():
            low, high = ends[name]
            code = original.outcome(mount, copy, name)
            if begin + 256 <= low or begin >= high:
                assert code == 0, (copy, name)
            if code == 0 and not in_payload(copy, name):
                assert read(mount.path / copy / "tensors" / name) == \
                    array.tobytes(), (copy, name)


def test_a_shard_that_is_damaged_fails_alone(tmp_path, ckpt):
    """Reads of the other shards of the same tensor work."""
    rng = np.random.default_rng(SEED)
    ck = Checkpoint(tmp_path / "store/step", files="item")
    array = ck.tensor("w", "bfloat16", random_array(
        DTYPES["bfloat16"], (8, 6), rng), grid((8, 6), (4, 2)))
    ck.write()
    path = ck.folder / "__3_0.distcp"
    data = read(path)
    path.write_bytes(b"\0" + data[1:])
    (ck.folder / "__4_0.distcp").write_bytes(data)
    mount = ckpt(tmp_path / "store", expect_log=[
        r"error: .*\bw: .*__3_0\.distcp: byte \d+: \S"])
    folder = mount.path / "step/tensors"
    for row in range(8):
        for half in range(2):
            bad = row // 2 == 1 and half == 1
            text = f"[{row},{half * 3}:{half * 3 + 3}]"
            if row // 2 == 2 and half == 0:
                # A whole item in the place of another: as stored.
                assert len(read(folder / ("w" + text))) == 6
                continue
            assert read_errno(folder / ("w" + text)) == \
                (errno.EIO if bad else 0), text
            if not bad:
                part = array[row:row + 1, half * 3:half * 3 + 3]
                assert read(folder / ("w" + text)) == part.tobytes()
    for _ in range(3):
        assert read_errno(folder / "w") == errno.EIO
    assert len(wait_errors(mount, r"__3_0\.distcp", 1)) == 1


def test_data_of_another_checkpoint(tmp_path, ckpt):
    """Half overwritten: the data file has other shapes than `.metadata`."""
    root = tmp_path / "store"
    root.mkdir()
    old = Original(root)
    other = Checkpoint(tmp_path / "other")
    for name in old.arrays:
        other.tensor(name, "float32", np.zeros((3, 4), "<f4"), ranks=[0],
                     layout=Layout(order=(1, 0)))
    other.write()
    old.copy("swapped", read(other.folder / "__0_0.distcp"))
    old.copy("whole", old.data)
    mount = ckpt(root, expect_log=[LINE])
    check_copies(mount, old, lambda copy, name: copy == "whole")


@pytest.mark.parametrize("era", ("1.13", "2.6"))
def test_older_archives(tmp_path, ckpt, era):
    """The same flips where fewer records say what the layout is."""
    (tmp_path / "store").mkdir()
    original = Original(tmp_path / "store", era, layout=Layout(order=(1, 0)))
    middle = original.entry["middle"]
    payload = range(original.place("data:data/0"),
                    original.place("descriptor:data/0"))
    for at in range(middle.start, middle.start + middle.length):
        if at not in payload:
            data = bytearray(original.data)
            data[at] ^= 1 << int(original.rng.integers(8))
            original.copy(f"flip-{at:05}", bytes(data))
    mount = ckpt(original.root, expect_log=[LINE])
    check_copies(mount, original,
                 lambda copy, name: None if name == "middle" else True)


def test_objects_of_damaged_files(tmp_path, ckpt):
    """NAME.pt is the bytes as stored while they are all there."""
    ck = Checkpoint(tmp_path / "store/step")
    values = {"a": {"x": [1, 2]}, "b": "text", "c": (0.5, None)}
    for name, value in values.items():
        ck.object(name, value)
    ck.tensor("w", "float32", np.zeros((2, 2), "<f4"), items=[Item()])
    ck.write()
    path = ck.folder / "__0_0.distcp"
    entry = {e.name: e for e in ck.entries}
    data = bytearray(read(path)[:entry["c"].start + 100])
    at = entry["b"].start + entry["b"].blob.marks["end"]
    data[at:at + 4] = b"\0\0\0\0"
    path.write_bytes(data)
    mount = ckpt(tmp_path / "store")
    folder = mount.path / "step/objects"
    assert read(folder / "a.pt") == bytes(entry["a"].blob)
    assert json.loads(read(folder / "a.json")) == {"x": [1, 2]}
    low, high = entry["b"].start, entry["b"].start + entry["b"].length
    assert read(folder / "b.pt") == bytes(data[low:high])
    assert not os.path.exists(folder / "b.json")
    assert read_errno(folder / "c.pt") in (errno.EIO, errno.ENOENT)
    assert not os.path.exists(folder / "c.json")
    assert read_errno(mount.path / "step/tensors/w") == errno.EIO
    mount.expect_log += [LINE]


def test_readers_that_close_at_once(tmp_path, ckpt):
    """The line about an item is said also when its reader is gone."""
    ck = Checkpoint(tmp_path / "store/step")
    names = [f"w{number}" for number in range(1500)]
    for name in names:
        ck.tensor(name, "int32", np.zeros(3, "<i4"), items=[Blob(b"x" * 40)],
                  ranks=[0])
    ck.write()
    mount = ckpt(tmp_path / "store", expect_log=[r"error: .*\bw\d+: "])
    for name in names:
        assert read_errno(mount.path / "step/tensors" / name) == errno.EIO
    said = [re.search(r"\b(w\d+): ", line)[1]
            for line in wait_errors(mount, "", len(names))]
    assert sorted(said) == sorted(names)
    assert mount.proc.poll() is None
