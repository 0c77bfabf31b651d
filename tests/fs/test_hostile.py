"""Checkpoints made to do harm: refused with a reason, and nothing else.

Whatever the source holds, the daemon stays, stays small, opens nothing
outside the checkpoint, and shows the good checkpoints beside the bad ones.
"""

import errno
import json
import os
import re
import stat

import numpy as np
import pytest

import mounting
from dcp import (DTYPES, Blob, Checkpoint, Entry, Item, Opcodes, Zeros, broken,
                 hostile, object_item, random_array, size)
from dcp.boxes import grid
from dcp.store import Store
from dcp.views import (UNREADABLE, check_refused, check_tensor, encode, errors,
                       index, read, read_errno, wait_errors)

SEED = 11
MEMORY = 128 << 20
CALM = (0, errno.EIO, errno.EOPNOTSUPP, errno.ENOENT)


class Yard:
    """A folder of hostile checkpoints with a good one among them."""

    def __init__(self, root):
        self.root = root
        self.rng = np.random.default_rng(SEED)
        self.cases = {}
        store = Store(root)
        self.good = [(ck.folder.name, store.tensor(
            ck, "w", "float32", (6, 4), grid((6, 4), (2, 2))))
            for ck in (store.add("aaa-good"), store.add("zzz-good"))]
        for ck in store.checkpoints.values():
            ck.write()

    def metadata(self, name, data):
        folder = self.root / name
        folder.mkdir(parents=True)
        (folder / ".metadata").write_bytes(data)
        (folder / "__0_0.distcp").write_bytes(b"stored")
        self.cases[name] = len(data)

    def check_alive(self, mount):
        """The good checkpoints are read whole and the daemon is small."""
        assert mount.proc.poll() is None
        for folder, array in self.good:
            check_tensor(mount.path / folder, "w", "float32", array,
                         self.rng)
        assert {"aaa-good", "zzz-good"} <= set(os.listdir(mount.path))
        check_memory(mount)


def cpu_seconds(mount):
    """What the daemon has used so far: no other process slows it down."""
    with open(f"/proc/{mount.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_memory(mount, limit=MEMORY):
    if not mounting.SANITIZER:
        with open(f"/proc/{mount.pid}/status") as file:
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1])
        assert peak * 1024 < limit, f"the daemon grew to {peak} KiB"


def allow(mount, regex):
    """Lines that may be in the log, but need not."""
    if re.search(regex, mount.log()):
        mount.expect_log.append(regex)


@pytest.fixture
def yard(tmp_path):
    return Yard(tmp_path / "store")


def reasons(log):
    """Folder -> (byte, reason) of each refusal; one line per refusal."""
    out = {}
    for line in errors(log):
        found = re.search(
            r"ckptfs: error: (?:.*/)?([^/]+)/\.metadata: byte (\d+): (\S.*)$",
            line)
        if found:
            assert found[1] not in out, line
            out[found[1]] = int(found[2]), found[3]
    return out


def explore(folder):
    """Read everything of a checkpoint that may be nonsense, a little of
    each file; only errors that a reader expects."""
    for view in ("tensors", "npy", "objects"):
        for name in sorted(os.listdir(folder / view))[:50]:
            try:
                with open(folder / view / name, "rb") as file:
                    file.read(5000)
                    file.seek(-min(5000, os.stat(file.fileno()).st_size), 2)
                    file.read(5000)
            except OSError as error:
                assert error.errno in CALM, (folder, view, name, error)
    json.loads(read(folder / "tensors.json").decode("utf-8"))


def check_refused_or_calm(mount, yard, name, said):
    folder = mount.path / name
    if name in said:
        check_refused(folder, yard.root / name)
        byte, _ = said[name]
        assert byte <= yard.cases[name], (name, said[name])
    else:
        explore(folder)
    assert read(folder / ".metadata") == read(yard.root / name / ".metadata")


# -- .metadata


def test_pickles_that_are_refused(yard, ckpt):
    """Every opcode that is not on the list, every broken rule, each limit."""
    for name, data in hostile.refused().items():
        yard.metadata(name, data)
    mount = ckpt(yard.root, expect_log=[r"error: .*/\.metadata: byte \d+: "])
    for name in yard.cases:
        check_refused(mount.path / name, yard.root / name)
    said = reasons(mount.log())
    assert set(said) == set(yard.cases)
    for name, (byte, _) in said.items():
        assert byte <= yard.cases[name], (name, said[name])
        if name.startswith("stream_first_"):
            assert byte == 2, (name, said[name])
    yard.check_alive(mount)
    assert len(reasons(mount.log())) == len(yard.cases)


def test_pickles_that_only_look_bad(yard, ckpt):
    """Loops, depth, sharing: refused or shown, in little time and memory."""
    for name, data in hostile.harmless().items():
        yard.metadata(name, data)
    mount = ckpt(yard.root, expect_log=[r"\.metadata: byte \d+: "])
    start = cpu_seconds(mount)
    for name in yard.cases:
        os.listdir(mount.path / name)
    assert cpu_seconds(mount) - start < 10 * mounting.SLOW
    said = reasons(mount.log())
    for name in yard.cases:
        check_refused_or_calm(mount, yard, name, said)
    allow(mount, r"error: (?!.*good).*__0_0\.distcp")
    for name in ("loop_list", "loop_object", "not_utf8", "call_size"):
        assert name not in said, said[name]
    yard.check_alive(mount)


def test_symbols_with_nul_bytes(yard, ckpt):
    """A global may hold any byte but a newline."""
    for name, data in hostile.nul_symbols().items():
        yard.metadata(name, data)
    mount = ckpt(yard.root)
    for name in yard.cases:
        os.listdir(mount.path / name)
    said = reasons(mount.log())
    for name in yard.cases:
        check_refused_or_calm(mount, yard, name, said)
    allow(mount, r"error: .*nul_\d+_\d+")
    allow(mount, r"error: w: ")
    yard.check_alive(mount)


# Some 100 KB to 1 MB each that stand for much more.
COSTLY = {
    "shards": lambda: hostile.multiplied(1000, 10_000),
    "boxes": lambda: hostile.multiplied(1, 30_000),
    "tensors": lambda: hostile.multiplied(20_000, 1),
    "attributes": lambda: hostile.wide_state(20_000, 60_000),
    "texts": lambda: hostile.equal_hashes(60_000, lambda i: ("x",)),
    "wide": lambda: hostile.equal_hashes(60_000, lambda i: (2 ** 80,)),
    "axes": lambda: hostile.equal_hashes(40_000, lambda i: (0,) * 40 + (i,)),
    "staggered": lambda: hostile.staggered(8_000),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_little_input_costs_little(yard, ckpt, name):
    """Sharing and collisions multiply neither memory nor time."""
    yard.metadata(name, COSTLY[name]())
    mount = ckpt(yard.root)
    start = cpu_seconds(mount)
    os.listdir(mount.path / name)
    os.path.lexists(mount.path / name / "tensors.json")
    taken = cpu_seconds(mount) - start
    allow(mount, rf"error: .*{name}/\.metadata: byte \d+: \S")
    yard.check_alive(mount)
    assert taken < 8 * mounting.SLOW


def test_a_path_that_many_shards_share_is_kept_once(yard, ckpt):
    ck = Checkpoint(yard.root / "paths")
    count = 20_000
    broad = np.zeros((count, 1), "<f4")
    ck.tensor("w", "float32", broad, grid((count, 1), (count, 1)),
              items=[None] * count)
    path = "/".join(["d" * 99] * 40)
    ck.entries = [Entry("w", (i, 0), i, 0, None, path, i, 100)
                  for i in range(count)]
    ck.folder.mkdir()
    ck.write_metadata()
    yard.cases["paths"] = 0
    mount = ckpt(yard.root, expect_log=[r"(error|warning): .*(dddd|\bw\b)"])
    for row in (0, 77, count - 1):
        assert read_errno(mount.path / f"paths/tensors/w[{row}]") == errno.EIO
    yard.check_alive(mount)
    check_memory(mount, 96 << 20)


@pytest.mark.parametrize("protocol", (2, 4))
def test_metadata_cut_at_every_byte(yard, ckpt, protocol):
    whole = hostile.metadata(protocol=protocol)
    for cut in range(len(whole)):
        yard.metadata(f"cut-{cut:05}", whole[:cut])
    mount = ckpt(yard.root, expect_log=[r"cut-\d+/\.metadata: byte \d+: "])
    for name in yard.cases:
        names = os.listdir(mount.path / name)
        assert sorted(names) == [".metadata", "__0_0.distcp"], name
    said = reasons(mount.log())
    assert set(said) == set(yard.cases)
    for name, (byte, reason) in said.items():
        assert byte <= int(name[4:]), (name, byte, reason)
    check_refused(mount.path / "cut-00100", yard.root / "cut-00100")
    yard.check_alive(mount)


@pytest.mark.parametrize("protocol", (2, 4))
def test_metadata_with_random_damage(yard, ckpt, protocol):
    ck = Checkpoint("nowhere", protocol=protocol)
    ck.tensor("w", "float32", np.zeros((4, 3), "<f4"), grid((4, 3), (2, 1)))
    ck.object("o", [1, 2])
    for entry in ck.entries:
        entry.path, entry.length = "__0_0.distcp", 6
    whole = ck.metadata()
    for number in range(700):
        data = bytearray(whole)
        for _ in range(int(yard.rng.integers(1, 4))):
            at = int(yard.rng.integers(len(data)))
            kind = yard.rng.integers(4)
            if kind == 0:
                data[at] ^= 1 << int(yard.rng.integers(8))
            elif kind == 1:
                data[at] = int(yard.rng.integers(256))
            elif kind == 2:
                del data[at:at + int(yard.rng.integers(1, 9))]
            else:
                data[at:at] = yard.rng.bytes(int(yard.rng.integers(1, 5)))
        yard.metadata(f"flip-{number:03}", bytes(data))
    mount = ckpt(yard.root, expect_log=[r"error: .*flip-\d+", r"error: "])
    for name in yard.cases:
        os.listdir(mount.path / name)
    said = reasons(mount.log())
    assert len(said) > len(yard.cases) // 4
    for name in yard.cases:
        check_refused_or_calm(mount, yard, name, said)
    assert not [line for line in errors(mount.log()) if "good" in line]
    yard.check_alive(mount)


def test_markers_that_are_no_files(yard, ckpt):
    """A `.metadata` that is a folder, a pipe, a device, a link: no hang."""
    for name in ("folder", "fifo", "outside", "dangling", "loop", "device",
                 "sparse", "vast"):
        (yard.root / name).mkdir()
        (yard.root / name / "file").write_bytes(b"stored")
    secret = yard.root.parent / "secret"
    secret.write_bytes((yard.root / "aaa-good/.metadata").read_bytes())
    (yard.root / "folder/.metadata").mkdir()
    os.mkfifo(yard.root / "fifo/.metadata")
    os.symlink(secret, yard.root / "outside/.metadata")
    os.symlink("nowhere", yard.root / "dangling/.metadata")
    os.symlink(".metadata", yard.root / "loop/.metadata")
    try:
        os.mknod(yard.root / "device/.metadata", 0o666 | stat.S_IFCHR,
                 os.makedev(1, 5))
    except PermissionError:
        pass
    for name, length in (("sparse", 1 << 30), ("vast", 1 << 40)):
        with open(yard.root / name / ".metadata", "wb") as file:
            file.truncate(length)
    mount = ckpt(yard.root, expect_log=[r"sparse/\.metadata",
                                        r"vast/\.metadata"])
    start = cpu_seconds(mount)
    for name in os.listdir(yard.root):
        if not name.endswith("good"):
            check_refused(mount.path / name, yard.root / name)
            assert read(mount.path / name / "file") == b"stored"
    assert cpu_seconds(mount) - start < 5 * mounting.SLOW
    allow(mount, r"error: .*(folder|fifo|outside|dangling|loop|device)/\.meta")
    yard.check_alive(mount)


# -- relative_path


def test_paths_that_leave_the_folder(yard, ckpt):
    """Nothing outside is opened: refused, or that tensor is EIO."""
    ck = Checkpoint(yard.root.parent / "outside")
    secret = ck.tensor("w", "float32", random_array(
        DTYPES["float32"], (64, 3), yard.rng))
    ck.write()
    item = ck.folder / "__0_0.distcp"
    paths = {"absolute": str(item), "up": "../../outside/__0_0.distcp",
             "up_inside": "sub/../../../outside/__0_0.distcp",
             "nul": "__0_0.distcp\0x", "empty": "", "dot": ".",
             "dots": "..", "slash": "/", "slash_end": "__0_0.distcp/",
             "link": "link.distcp", "link_folder": "folder/__0_0.distcp",
             "proc": "/proc/self/mem", "fifo": "fifo.distcp",
             "device": "device.distcp", "directory": "sub",
             "long": "x" * 5000, "long_part": "x" * 300,
             "surrogate": "\ud800.distcp"}
    for name, path in paths.items():
        bad = Checkpoint(yard.root / name)
        bad.tensor("w", "float32", secret, items=[ck.entries[0].blob])
        bad.layout()
        folder = bad.folder
        (folder / "sub").mkdir()
        os.symlink(item, folder / "link.distcp")
        os.symlink("../../outside", folder / "folder")
        os.mkfifo(folder / "fifo.distcp")
        try:
            os.mknod(folder / "device.distcp", 0o666 | stat.S_IFCHR,
                     os.makedev(1, 5))
        except PermissionError:
            pass
        bad.entries[0].path = path
        bad.write_metadata()
        yard.cases[name] = os.path.getsize(folder / ".metadata")
    mount = ckpt(yard.root, expect_log=[r"error: "])
    for name in paths:
        folder = mount.path / name
        if os.path.lexists(folder / "tensors"):
            assert read_errno(folder / "tensors/w") == errno.EIO, name
            assert read_errno(folder / "tensors/w[3:4]") == errno.EIO, name
            json.loads(read(folder / "tensors.json").decode("utf-8"))
        else:
            check_refused(folder, yard.root / name)
        assert re.search(rf"(error|warning): .*{name}\b", mount.log()), name
    yard.check_alive(mount)


# -- items


@pytest.mark.parametrize("kind", ("structures", "pickled"))
def test_archives_that_lie(yard, ckpt, kind):
    """Each fails alone, with one line, or gives the right bytes."""
    ck = Checkpoint(yard.root / "step")
    dtype = DTYPES["float32"]
    array = random_array(dtype, broken.SHAPE, yard.rng)
    decoy = Item().build(dtype, np.full(broken.SHAPE, 77, "<f4"))
    forms = getattr(broken, kind)(array)
    ck.tensor("decoy.first", "float32", array, items=[decoy])
    for name, blob in forms.items():
        ck.tensor(name, "float32", array, items=[blob], ranks=[0])
        ck.tensor(name + ".after", "float32", array, items=[decoy], ranks=[0])
    ck.write()
    mount = ckpt(yard.root, expect_log=[r"error: .*__0_0\.distcp: byte \d+: "])
    folder = mount.path / "step/tensors"
    wrong, silent = [], []
    for name in forms:
        path = folder / encode(name)
        code = read_errno(path)
        if code == 0 and read(path) != array.tobytes():
            wrong.append(name)
        elif code:
            assert code in UNREADABLE, (name, code)
            assert read_errno(f"{path}[1:2]") == code
            lines = wait_errors(mount, rf"[ /]{re.escape(name)}: ", 1)
            if len(lines) != 1:
                silent.append((name, lines))
        assert read(folder / encode(name + ".after")) == \
            np.full(broken.SHAPE, 77, "<f4").tobytes(), name
    assert not wrong and not silent, (wrong, silent)
    yard.check_alive(mount)


def test_an_item_with_a_huge_directory(yard, ckpt):
    """A sparse item may claim any number of records: no memory for them."""
    ck = Checkpoint(yard.root / "step")
    array = np.zeros(broken.SHAPE, "<f4")
    good = Item().build(DTYPES["float32"], array)
    tail = bytearray(bytes(good)[good.marks["end64"]:])
    hole = 3 << 30
    for at, value in ((24, hole // 46), (32, hole // 46), (40, hole), (48, 0),
                      (64, hole)):
        tail[at:at + 8] = value.to_bytes(8, "little")
    ck.tensor("w", "float32", array, items=[Blob(Zeros(hole), bytes(tail))])
    ck.tensor("v", "float32", array, items=[Blob(
        bytes(good), Zeros(hole))], ranks=[1])
    ck.write()
    mount = ckpt(yard.root, expect_log=[r"error: .*\bw: ", r"error: .*\bv: "])
    start = cpu_seconds(mount)
    for name in ("w", "v"):
        assert read_errno(mount.path / "step/tensors" / name) in UNREADABLE
    assert cpu_seconds(mount) - start < 10 * mounting.SLOW
    yard.check_alive(mount)


# -- objects


def test_objects_that_explode_as_json(yard, ckpt):
    """Bytes as stored, always; JSON only where it stays in proportion."""
    ck = Checkpoint(yard.root / "step")
    loop = b"\x80\x02]q\0h\0a."
    pickles = {
        "laughs": b"\x80\x02" + hostile.laughs() + b".", "loop": loop,
        "loop_dict": b"\x80\x02}q\0X\x01\0\0\0ah\0s.",
        "loop_tuple": b"\x80\x02]q\0(h\0h\0h\0h\0te.",
        "deep": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "deep_tuples": b"\x80\x02N" + b"\x85" * 200_000 + b".",
        "shared_text": b"\x80\x02(X\x00\x00\x01\x00" + b"x" * 65536 + b"q\0"
        + b"h\0" * 60_000 + b"t.",
        "huge_text": b"\x80\x02X\xff\xff\xff\xff.", "cut": b"\x80\x02](K\x01",
        "memo": b"\x80\x02Nr\xff\xff\xff\xff.", "inst": b"(ios\nsystem\n.",
        "wide_int": b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
        "empty": b"", "many_marks": b"\x80\x02" + b"(" * 500_000 + b".",
        "key_list": b"\x80\x02}]K\x01s.", "nan": b"\x80\x02G\x7f\xf8" +
        bytes(6) + b".", "surrogate": b"\x80\x02X\x03\0\0\0\xed\xa0\x80.",
        "not_utf8": b"\x80\x02X\x02\0\0\0\xff\xfe.",
        "call": b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.",
    }
    blobs = {name: object_item(data) for name, data in pickles.items()}
    for name, blob in broken.structures(np.zeros(broken.SHAPE,
                                                 "<f4")).items():
        blobs["archive_" + name] = blob
    for name, blob in blobs.items():
        ck.object(name, blob)
    ck.object("good", {"a": [1]})
    ck.write()
    mount = ckpt(yard.root)
    folder = mount.path / "step/objects"
    start = cpu_seconds(mount)
    names = set(os.listdir(folder))
    for name, blob in blobs.items():
        assert read(folder / f"{name}.pt") == bytes(blob), name
        path = folder / f"{name}.json"
        code = read_errno(path)
        assert (code == errno.ENOENT) == (f"{name}.json" not in names), name
        if code == 0:
            json.loads(read(path).decode("utf-8"))
            assert os.stat(path).st_size < 64 << 20, name
    assert cpu_seconds(mount) - start < 20 * mounting.SLOW
    for name in pickles:
        if name not in ("nan", "surrogate", "not_utf8", "wide_int",
                        "shared_text"):
            assert f"{name}.json" not in names, name
    assert json.loads(read(folder / "good.json")) == {"a": [1]}
    allow(mount, r"error: .*__0_0\.distcp: byte \d+: ")
    yard.check_alive(mount)


# -- names and shapes


def test_large_names(yard, ckpt):
    """100 KB of name: refused, or cut; the daemon stays."""
    rows = np.arange(6, dtype="<f4").reshape(2, 3)
    for name, text in (("ascii", "n" * 100_000), ("slashes", "/" * 100_000),
                       ("nuls", "\0" * 100_000), ("wide", "\u20ac" * 40_000)):
        ck = Checkpoint(yard.root / name)
        ck.tensor(text, "float32", rows)
        ck.tensor("w", "float32", rows)
        ck.object(text + "o", 1)
        ck.write()
        yard.cases[name] = os.path.getsize(ck.folder / ".metadata")
    mount = ckpt(yard.root)
    for name in yard.cases:
        folder = mount.path / name
        if not os.path.lexists(folder / "tensors"):
            mount.expect_log.append(rf"error: .*{name}/\.metadata: byte \d+")
            check_refused(folder, yard.root / name)
            continue
        files = os.listdir(folder / "tensors")
        assert len(files) == 2 and "w" in files
        for file in files:
            assert read(folder / "tensors" / file) == rows.tobytes()
            os.listxattr(folder / "tensors" / file)
        assert len(index(folder)) == 2
    yard.check_alive(mount)


def test_shapes_at_the_limits(yard, ckpt):
    """Sizes without data: a listing shows them, reads are EIO."""
    ck = Checkpoint(yard.root / "step")
    shapes = {"tera": (2 ** 40,), "axes": (1,) * 30, "zeros": (0, 2 ** 40)}
    for name, shape in shapes.items():
        ck.tensor(name, "uint8", np.zeros((), "u1"), [], shape=shape)
    ck.object("o", 1)
    ck.write()
    mount = ckpt(yard.root)
    folder = mount.path / "step/tensors"
    assert os.stat(folder / "tera").st_size == 2 ** 40
    assert read_errno(folder / f"tera[{2 ** 40 - 1}]") == errno.EIO
    assert read_errno(folder / "axes") == errno.EIO
    assert read(folder / "zeros") == b""
    assert json.loads(os.getxattr(folder / "axes", "user.ckptfs.shape")) == \
        [1] * 30
    yard.check_alive(mount)


def test_names_cannot_forge_lines_of_the_log(yard, ckpt):
    """Control bytes of names and paths do not reach the terminal."""
    evil = "x\nckptfs: error: forged\x1b[31m\r\x00\x9b\u2028"
    array = np.zeros(broken.SHAPE, "<f4")
    ck = Checkpoint(yard.root / "item")
    ck.tensor(evil, "float32", array, items=[object_item(7)])
    ck.tensor(evil + "hole", "float32", array, [])
    ck.tensor(evil + "path", "float32", array)
    ck.layout()
    ck.entries[1].path = evil.replace("\0", "")
    ck.write_metadata()
    bad = Checkpoint(yard.root / "bounds")
    bad.tensor(evil, "float32", array, [((9, 0), (4, 3))], items=[Blob(b"x")])
    bad.write()
    mount = ckpt(yard.root, expect_log=[r"bounds/\.metadata", "forged"])
    for name in (evil, evil + "hole", evil + "path"):
        assert read_errno(mount.path / "item/tensors" / encode(name))
    check_refused(mount.path / "bounds")
    log = mount.log_file.read_bytes()
    assert b"\nckptfs: error: forged" not in log
    assert not set(log) - {10} & (set(range(32)) | {127}), log
    for line in log.decode("utf-8").rstrip("\n").split("\n"):
        assert line.startswith("ckptfs: "), line
    yard.check_alive(mount)


def test_objects_of_opcodes_are_never_run(yard, ckpt, tmp_path):
    """The pickle that every unpickler must not run."""
    flag = tmp_path / "executed"
    call = Opcodes(b"cos\nsystem\nX" + len(f"touch {flag}").to_bytes(
        4, "little") + f"touch {flag}".encode() + b"\x85R")
    ck = Checkpoint(yard.root / "step", extras={"extra": call})
    ck.tensor("w", "float32", np.zeros(3, "<f4"))
    ck.object("o", {"a": call})
    ck.tensor("v", "float32", np.zeros(3, "<f4"), items=[object_item(call)])
    ck.write()
    yard.metadata("shape", hostile.metadata(lambda state: hostile.tensor(
        state).update(size=size((call, 3)))))
    mount = ckpt(yard.root, expect_log=[r"error: .*\bv: ",
                                        r"error: .*shape/\.metadata: byte"])
    assert read(mount.path / "step/tensors/w") == bytes(12)
    assert read_errno(mount.path / "step/tensors/v") == errno.EOPNOTSUPP
    assert read_errno(mount.path / "step/objects/o.json") == errno.ENOENT
    check_refused(mount.path / "shape")
    yard.check_alive(mount)
    assert not flag.exists()
