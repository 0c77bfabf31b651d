"""Shards that leave holes, overlap, lie outside, or are not there at all."""

import errno
import json
import os
import re

import numpy as np
import pytest

from dcp import DTYPES, Blob, Entry, Item, Pairs, Zeros, random_array
from dcp.boxes import grid, tiling
from dcp.store import Store
from dcp.views import (check_refused, check_tensor, errors, index, read,
                       read_errno)


@pytest.fixture
def many(tmp_path):
    return Store(tmp_path / "store")


def inside(boxes, shape):
    """A mask of the elements that the boxes cover."""
    mask = np.zeros(shape, bool)
    for offsets, sizes in boxes:
        mask[tuple(slice(o, o + n) for o, n in zip(offsets, sizes))] = True
    return mask


def json_boxes(boxes):
    return [(tuple(b["offsets"]), tuple(b["sizes"])) for b in boxes]


def warnings(log, name):
    return [line for line in log.splitlines()
            if re.search(rf"ckptfs: warning: .*\b{re.escape(name)}\b", line)]


def check_range(path, array, mask, begin, count):
    """Bytes of a range if all of it is there, else EIO."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        data, code = os.pread(fd, count, begin), 0
    except OSError as error:
        data, code = b"", error.errno
    finally:
        os.close(fd)
    flat = np.repeat(mask.reshape(-1), array.itemsize)[begin:begin + count]
    if flat.all():
        assert code == 0 and data == array.tobytes()[begin:begin + count]
    else:
        assert code == errno.EIO, (path, begin, count)


def check_holes(folder, name, array, mask, rng):
    path = folder / "tensors" / name
    row_bytes = array[0].nbytes
    for row in range(array.shape[0]):
        code = read_errno(f"{path}[{row}]")
        assert code == (0 if mask[row].all() else errno.EIO), (name, row)
        if mask[row].all():
            assert read(f"{path}[{row}]") == array[row].tobytes()
        check_range(path, array, mask, row * row_bytes, row_bytes)
    for _ in range(20):
        begin = int(rng.integers(0, array.nbytes))
        count = int(rng.integers(1, array.nbytes - begin + 1))
        check_range(path, array, mask, begin, count)
    assert read_errno(path) == (0 if mask.all() else errno.EIO)
    assert read_errno(folder / f"npy/{name}.npy") == read_errno(path)
    line = index(folder)[name]
    holes = inside(json_boxes(line.get("holes", [])), array.shape)
    assert (holes == ~mask).all(), name
    assert ("holes" in line) == (not mask.all()), name


def test_holes(many, ckpt):
    """EIO where a read touches one, and only there."""
    ck = many.add("step")
    cases = {}
    for name, shape, counts, lost in (
            ("rows", (9, 4), (3, 1), (1,)), ("first", (9, 4), (3, 1), (0,)),
            ("last", (9, 4), (3, 1), (2,)), ("column", (6, 6), (1, 3), (1,)),
            ("cells", (6, 8), (3, 4), (0, 5, 6, 11)),
            ("cube", (4, 4, 4), (2, 2, 2), (3, 4)),
            ("all_but_one", (6, 8), (3, 4), tuple(range(11)))):
        boxes = [b for i, b in enumerate(grid(shape, counts))
                 if i not in lost]
        array = random_array(DTYPES["int32"], shape, many.rng)
        ck.tensor(name, "int32", array, boxes)
        cases[name] = array, inside(boxes, shape)
    for number in range(8):
        shape = tuple(int(n) for n in many.rng.integers(3, 9, 2))
        boxes = tiling(shape, many.rng, 8)[2:]
        array = random_array(DTYPES["int32"], shape, many.rng)
        ck.tensor(f"random{number}", "int32", array, boxes)
        cases[f"random{number}"] = array, inside(boxes, shape)
    many.tensor(ck, "whole", "int32", (3, 4))
    mount = many.mount(ckpt)
    for name, (array, mask) in cases.items():
        check_holes(mount.path / "step", name, array, mask, many.rng)
        assert len(warnings(mount.log(), name)) == (not mask.all()), name
    check_tensor(mount.path / "step", *many.tensors[0][1:], many.rng)


def test_many_holes(many, ckpt):
    """Each second of 1200 shards is gone: the others can still be read."""
    ck = many.add("step")
    array = random_array(DTYPES["int32"], (2400, 3), many.rng)
    ck.tensor("w", "int32", array, grid((2400, 3), (1200, 1))[::2],
              ranks=[0] * 600)
    mount = many.mount(ckpt)
    folder = mount.path / "step"
    for row in range(0, 2400, 97):
        lost = row // 2 % 2 == 1
        code = read_errno(folder / f"tensors/w[{row}]")
        assert code == (errno.EIO if lost else 0), row
        if not lost:
            assert read(folder / f"tensors/w[{row}]") == array[row].tobytes()
    assert read_errno(folder / "tensors/w") == errno.EIO
    assert index(folder)["w"]["holes"]


def test_no_chunks_at_all(many, ckpt):
    ck = many.add("step")
    array = ck.tensor("none", "int32", np.zeros((4, 3), "<i4"), [])
    ck.tensor("empty", "int32", np.zeros((0, 3), "<i4"), [])
    mount = many.mount(ckpt)
    check_holes(mount.path / "step", "none", array,
                np.zeros((4, 3), bool), many.rng)
    check_tensor(mount.path / "step", "empty", "int32",
                 np.zeros((0, 3), "<i4"))


def test_overlaps(many, ckpt):
    """The later chunk of the list wins; said once."""
    ck = many.add("step", files="item")
    cases = {}
    for number in range(12):
        shape = tuple(int(n) for n in many.rng.integers(4, 9, 1 + number % 3))
        boxes = tiling(shape, many.rng, 5)
        for _ in range(3):
            begin = [int(many.rng.integers(0, n)) for n in shape]
            boxes.append((tuple(begin), tuple(
                int(many.rng.integers(1, n - b + 1))
                for b, n in zip(begin, shape))))
        order = many.rng.permutation(len(boxes))
        boxes = list({boxes[i][0]: boxes[i] for i in order}.values())
        name, items = f"random{number}", []
        want = np.zeros(shape, "<i4")
        for offsets, sizes in boxes:
            part = random_array(DTYPES["int32"], sizes, many.rng)
            want[tuple(slice(o, o + n)
                       for o, n in zip(offsets, sizes))] = part
            items.append(Item().build(DTYPES["int32"], part))
        ck.tensor(name, "int32", want, boxes, items=items)
        mask = inside(boxes, shape)
        volume = sum(int(np.prod(sizes)) for _, sizes in boxes)
        cases[name] = want, mask, volume > int(mask.sum())
    mount = many.mount(ckpt)
    lines = index(mount.path / "step")
    for name, (want, mask, overlap) in cases.items():
        check_holes(mount.path / "step", name, want, mask, many.rng)
        assert lines[name].get("overlap", False) is overlap, name
        if mask.all():
            check_tensor(mount.path / "step", name, "int32", want, many.rng,
                         slices=6)
        said = [w for w in warnings(mount.log(), name) if "overlap" in w]
        assert len(said) == overlap, (name, said)


def test_holes_and_overlaps_at_once(many, ckpt):
    """The volumes add up to the whole, and still it is not covered."""
    ck = many.add("step", files="item")
    boxes = [((0, 0), (4, 3)), ((2, 0), (4, 3))]
    parts = [random_array(DTYPES["int32"], (4, 3), many.rng) for _ in "ab"]
    want = np.zeros((8, 3), "<i4")
    want[0:4] = parts[0]
    want[2:6] = parts[1]
    ck.tensor("w", "int32", want, boxes, items=[
        Item().build(DTYPES["int32"], part) for part in parts])
    mount = many.mount(ckpt)
    check_holes(mount.path / "step", "w", want, inside(boxes, (8, 3)),
                many.rng)
    line = index(mount.path / "step")["w"]
    assert line["overlap"] is True


def test_a_box_out_of_bounds_refuses_the_checkpoint(many, ckpt):
    boxes = {"end": [((0, 0), (3, 4)), ((3, 0), (2, 4))],
             "side": [((0, 0), (4, 5))], "start": [((5, 0), (1, 4))],
             "far": [((2 ** 40, 0), (1, 4))],
             "wraps": [((2 ** 63 - 1, 0), (2, 4))],
             "negative": [((-1, 0), (2, 4))],
             "axes": [((0,), (4,))], "more_axes": [((0, 0, 0), (4, 4, 1))],
             "not_stored": [((0, 0), (5, 4))]}
    patterns = []
    for name, bad in boxes.items():
        ck = many.add(f"bad-{name}")
        ck.tensor("fine", "int32", np.zeros((4, 4), "<i4"))
        ck.tensor(f"layer.{name}.w", "int32", np.zeros((4, 4), "<i4"), bad,
                  items=[None if name == "not_stored" else Blob(b"x")]
                  * len(bad))
        patterns.append(rf"error: .*bad-{name}/\.metadata: byte \d+: \S")
    good = many.add("good")
    many.tensor(good, "w", "int32", (4, 4))
    mount = many.mount(ckpt, expect_log=patterns)
    for name in boxes:
        check_refused(mount.path / f"bad-{name}", many.root / f"bad-{name}")
    check_tensor(mount.path / "good", *many.tensors[0][1:], many.rng)
    for name, pattern in zip(boxes, patterns):
        lines = errors(mount.log(), pattern)
        assert len(lines) == 1 and f"layer.{name}.w" in lines[0], lines


def test_data_files_that_are_not_there(many, ckpt):
    """Missing, of 0 bytes, or a folder: EIO where a shard lies in it."""
    ck = many.add("step")
    arrays = {}
    for name in ("a", "b", "c"):
        arrays[name] = ck.tensor(name, "int32", random_array(
            DTYPES["int32"], (8, 3), many.rng), grid((8, 3), (4, 1)))
    many.tensor(ck, "good", "int32", (3, 3))
    ck.object("gone", {"a": 1}, rank=1)
    ck.object("kept", {"a": 1}, rank=0)
    ck.write()
    os.unlink(ck.folder / "__1_0.distcp")
    os.truncate(ck.folder / "__2_0.distcp", 0)
    os.unlink(ck.folder / "__3_0.distcp")
    os.mkdir(ck.folder / "__3_0.distcp")
    mount = ckpt(many.root, expect_log=[
        r"(warning|error): .*__1_0\.distcp", r"(warning|error): .*__2_0",
        r"(warning|error): .*__3_0", r"error: .*(\b[abc]|gone): "])
    folder = mount.path / "step"
    for name, array in arrays.items():
        path = folder / "tensors" / name
        assert os.stat(path).st_size == array.nbytes
        assert read(f"{path}[0:2]") == array[:2].tobytes()
        for part in ("[2:4]", "[4:6]", "[6:8]", "", "[1:3]"):
            assert read_errno(f"{path}{part}") == errno.EIO, (name, part)
    check_tensor(folder, *many.tensors[0][1:], many.rng)
    assert json.loads(read(folder / "objects/kept.json")) == {"a": 1}
    assert read_errno(folder / "objects/gone.pt") in (errno.EIO, errno.ENOENT)


def test_keys_of_storage_data(many, ckpt):
    """Given twice, the last one counts, as in Python; missing is a hole."""
    ck = many.add("step", files="item")
    rows = random_array(DTYPES["int32"], (4, 3), many.rng)
    boxes = grid((4, 3), (2, 1))
    wrong, right = (Item().build(DTYPES["int32"], part)
                    for part in (rows[:2] + 1, rows[:2]))
    many.tensor(ck, "twice", "int32", (4, 3), boxes, array=rows,
                items=[wrong, Item()])
    ck.entries.append(Entry("twice", (0, 0), 0, 0, right))
    ck.tensor("missing", "int32", rows, boxes, items=[None, Item()])
    ck.entries.append(Entry("nobody", (0, 0), 0, 0, right))
    ck.entries.append(Entry("twice", (1, 0), 0, 0, wrong))
    mount = many.mount(ckpt, expect_log=["missing"])
    folder = mount.path / "step"
    check_tensor(folder, *many.tensors[0][1:], many.rng)
    path = folder / "tensors/missing"
    assert read(f"{path}[2:4]") == rows[2:].tobytes()
    assert read_errno(f"{path}[0:1]") == errno.EIO
    assert read_errno(path) == errno.EIO
    assert set(os.listdir(folder / "tensors")) == {"twice", "missing"}


def test_a_name_given_twice(many, ckpt):
    """In state_dict_metadata; as in Python the last one counts."""
    ck = many.add("step")
    many.tensor(ck, "w", "int32", (4, 3))

    def edit(state):
        pairs = state["state_dict_metadata"]
        other = ck.tensor_metadata(ck.tensors["w"], [((0, 0), (1, 3))])
        state["state_dict_metadata"] = Pairs(
            [("w", other), *pairs.items()])

    ck.edit = edit
    mount = many.mount(ckpt)
    many.check(mount)


def test_items_that_disagree_with_the_metadata(many, ckpt):
    """The sign of a checkpoint that was overwritten half: EIO."""
    ck = many.add("step")
    rows = many.tensor(ck, "good", "int32", (4, 3))
    wrong = {"size": Item(size=(3, 4)), "axes": Item(size=(12,)),
             "dtype": Item(dtype="float32"), "wider": Item(dtype="int64"),
             "larger": Item(size=(5, 3)), "smaller": Item(size=(3, 3)),
             "count": Item(numel=13), "less": Item(numel=11)}
    for name, item in wrong.items():
        ck.tensor(name, "int32", rows, items=[item])
    other = Item().build(DTYPES["float32"], rows.view("<f4"))
    ck.tensor("other", "int32", rows, items=[other])
    mount = many.mount(ckpt, expect_log=[
        rf"error: (.*[ /])?{name}: .*__0_0\.distcp: byte \d+: \S"
        for name in [*wrong, "other"]])
    for name in [*wrong, "other"]:
        assert read_errno(mount.path / "step/tensors" / name) == errno.EIO
    check_tensor(mount.path / "step", *many.tensors[0][1:], many.rng)


def test_places_outside_the_data_file(many, ckpt):
    """Offsets and lengths of storage_data that no file has."""
    ck = many.add("step")
    rows = many.tensor(ck, "good", "int32", (4, 3))
    places = {"beyond": (10 ** 6, None), "long": (None, 10 ** 6),
              "huge": (2 ** 61, None),
              "short": (None, 10), "nothing": (None, 0)}
    for name in places:
        ck.tensor(name, "int32", rows)
    ck.layout()
    for entry in ck.entries:
        start, length = places.get(entry.name, (None, None))
        entry.start = entry.start if start is None else start
        entry.length = entry.length if length is None else length
    ck.write_metadata()
    mount = ckpt(many.root, expect_log=[
        rf"(error|warning): (.*[ /])?{name}\b" for name in places])
    for name in places:
        assert read_errno(mount.path / "step/tensors" / name) == errno.EIO
    check_tensor(mount.path / "step", *many.tensors[0][1:], many.rng)


def test_impossible_places_refuse_the_checkpoint(many, ckpt):
    places = {"offset": (-1, 10), "length": (0, -1),
              "wraps": (2 ** 63 - 8, 2 ** 63 - 8), "more": (2 ** 64, 1)}
    for name, place in places.items():
        ck = many.add(name)
        ck.tensor("w", "int32", np.zeros((4, 3), "<i4"))
        ck.layout()
        ck.entries[0].start, ck.entries[0].length = place
        ck.write_metadata()
    mount = ckpt(many.root, expect_log=[
        rf"error: .*{name}/\.metadata: byte \d+: \S" for name in places])
    for name in places:
        check_refused(mount.path / name, many.root / name)


def test_a_lone_rank_local_metadata(many, ckpt):
    """__2.metadata alone: what rank 2 has can be read, the rest is a hole."""
    ck = many.add("step", rank_local=True)
    rows = random_array(DTYPES["int32"], (7, 3), many.rng)
    boxes = grid((7, 3), (4, 1))
    ck.tensor("w", "int32", rows, boxes)
    many.tensor(ck, "mine", "int32", (2, 3), ranks=[2])
    ck.tensor("other", "int32", rows[:2], ranks=[1])
    ck.write()
    for name in os.listdir(ck.folder):
        if not name.startswith("__2"):
            os.unlink(ck.folder / name)
    mount = ckpt(many.root)
    folder = mount.path / "step"
    assert set(os.listdir(folder / "tensors")) == {"w", "mine"}
    check_holes(folder, "w", rows, inside(boxes[2:3], (7, 3)), many.rng)
    check_tensor(folder, *many.tensors[0][1:], many.rng)


def test_metadata_wins_over_rank_local(many, ckpt):
    """A folder with both kinds is read by `.metadata`."""
    ck = many.add("step")
    many.tensor(ck, "w", "int32", (4, 3))
    ck.write()
    (ck.folder / "__0.metadata").write_bytes(b"not a pickle")
    many.check(many.mount(ckpt))


def test_the_lowest_rank_is_a_number(many, ckpt):
    """__2 goes before __10, whatever the order of their names."""
    ck = many.add("step", rank_local=True)
    array = random_array(DTYPES["int32"], (3, 4), many.rng)
    whole, ranks = ((0, 0), (3, 4)), [10, 2, 100]
    ck.tensor("same", "int32", array, [whole] * 3, ranks=ranks, items=[
        Item().build(DTYPES["int32"], array + rank - 2) for rank in ranks])
    many.tensors.append(("step", "same", "int32", array))
    many.tensor(ck, "split", "int32", (9, 2), grid((9, 2), (3, 1)),
                ranks=ranks)
    many.check(many.mount(ckpt))


def test_ranks_that_disagree(many, ckpt):
    """About the shape of a tensor: the lowest is believed, and it is said."""
    for rank, rows in ((0, 4), (1, 6)):
        ck = many.add("step", rank_local=True)
        array = random_array(DTYPES["int32"], (rows, 3), many.rng)
        ck.tensor("w", "int32", array, ranks=[rank])
        ck.write()
        if rank == 0:
            many.tensors.append(("step", "w", "int32", array))
    mount = ckpt(many.root)
    many.check(mount)
    assert warnings(mount.log(), "w")


def test_one_bad_rank_local_metadata(many, ckpt):
    """Refused, by the name of the file that is bad."""
    ck = many.add("step", rank_local=True)
    many.tensor(ck, "w", "int32", (6, 3), grid((6, 3), (3, 1)))
    ck.write()
    bad = ck.folder / "__1.metadata"
    bad.write_bytes(bad.read_bytes()[:100])
    mount = ckpt(many.root, expect_log=[
        r"error: .*step/__1\.metadata: byte 100: \S"])
    check_refused(mount.path / "step", ck.folder)


def test_names_that_are_no_markers(many, ckpt):
    """Only .metadata and __N.metadata make a folder a checkpoint."""
    ck = many.add("step")
    many.tensor(ck, "w", "int32", (6, 3))
    ck.write()
    data = (ck.folder / ".metadata").read_bytes()
    names = (".metadata.tmp", "__0.metadata.tmp", "metadata", "__.metadata",
             "__x.metadata", "__-1.metadata", "_0.metadata", "0.metadata",
             "__0_0.metadata", "__0.metadata ", "__0.Metadata",
             "__ 0.metadata", "__0x1.metadata", "x__0.metadata")
    for name in names:
        (many.root / f"no {name}").mkdir()
        (many.root / f"no {name}" / name).write_bytes(data)
    mount = ckpt(many.root)
    for name in names:
        assert os.listdir(mount.path / f"no {name}") == [name]
        check_refused(mount.path / f"no {name}")
    many.check(mount)


def test_a_hole_of_a_huge_tensor_costs_nothing(many, ckpt):
    """Holes are boxes: no bitmap, no list per element."""
    ck = many.add("step")
    shape = (2 ** 20, 2 ** 20)
    broad = np.broadcast_to(np.float32(0), shape)
    corner = Item(payload=Zeros(4 * 2 ** 20))
    boxes = [((0, 0), (1, 2 ** 20)), ((2 ** 20 - 1, 0), (1, 2 ** 20))]
    ck.tensor("w", "float32", broad, boxes, items=[corner, corner])
    mount = many.mount(ckpt)
    folder = mount.path / "step"
    assert os.stat(folder / "tensors/w").st_size == 2 ** 42
    assert read(folder / "tensors/w[0,5:9]") == bytes(16)
    assert read(folder / f"tensors/w[{2 ** 20 - 1}]") == bytes(2 ** 22)
    assert read_errno(folder / "tensors/w[77,5:9]") == errno.EIO
    holes = json_boxes(index(folder)["w"]["holes"])
    assert sum(rows * columns for _, (rows, columns) in holes) == \
        (2 ** 20 - 2) * 2 ** 20
    assert len(holes) <= 4
