"""The store changes while it is mounted: nothing new under an old inode."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp

import util
from mounting import poll

SHAPE = (512, 1024)
SIZE = 512 * 1024 * 4
# Folders are looked at again after one second; this is generous.
SOON = 5
GONE = ("ESTALE", "ENOENT", "EIO")


def save(folder, value, shape=SHAPE, extra=()):
    tensor = torch.full(shape, float(value))
    tensors = {"w": (tensor, util.grid(shape, (4, 1)))}
    tensors.update({n: (torch.full((3,), float(value)), [((0,), (3,))])
                    for n in extra})
    return util.save_chunks(folder, tensors, files=2,
                            objects={"step": value})


def bytes_of(value, size=SIZE):
    return util.tensor_bytes(torch.full((size // 4,), float(value)))


class Old:
    """A view file that was opened before the change."""

    def __init__(self, path, value):
        self.path = path
        self.want = bytes_of(value, os.stat(path).st_size)
        self.inode = os.stat(path).st_ino
        # Direct, so that the kernel's cache answers nothing.
        self.direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.cached = os.open(path, os.O_RDONLY)
        assert os.pread(self.direct, 4096, 0) == self.want[:4096]
        assert os.pread(self.cached, 10, 0) == self.want[:10]

    def read(self, offset=0):
        """The errno of a read, or 0 for old bytes; never new ones."""
        try:
            got = os.pread(self.direct, 4096, offset)
        except OSError as error:
            util.same_errno(error.errno, *GONE)
            return error.errno
        assert got == self.want[offset:offset + 4096]
        return 0

    def expect_stale(self, touch):
        """`touch` is a lookup; afterwards the file is stale for good."""
        def stale():
            util.errno_of(touch)
            number = self.read()
            return number and util.errno.errorcode[number] == "ESTALE"

        poll(stale, SOON, "ESTALE from %s" % self.path)
        for offset in 0, 4096, SIZE // 2:
            util.same_errno(self.read(offset), "ESTALE")
        number = util.errno_of(os.pread, self.cached, 4096, 3 * SIZE // 4)
        util.same_errno(number, "ESTALE")

    def expect_old(self):
        """All of it is what it was, though its name is gone."""
        for fd in self.direct, self.cached:
            got = b"".join(os.pread(fd, 1 << 20, offset)
                           for offset in range(0, len(self.want), 1 << 20))
            assert got == self.want

    def close(self):
        os.close(self.direct)
        os.close(self.cached)


@pytest.fixture
def old():
    opened = []

    def make(path, value):
        opened.append(Old(path, value))
        return opened[-1]

    yield make
    for file in opened:
        file.close()


def read_or_none(path):
    """None while the change is under way; anything else is an error."""
    try:
        return path.read_bytes()
    except OSError as error:
        util.same_errno(error.errno, *GONE)
        return None


def becomes(path, before, after):
    """Reads by name give the old bytes or an error, then the new."""
    def new():
        data = read_or_none(path)
        assert data in (None, before, after), "neither old nor new"
        return data == after

    poll(new, SOON, "new bytes in %s" % path)


@pytest.fixture
def two(tmp_path, ckpt):
    """A mount of two checkpoints: the tests change `a`, never `b`."""
    root = tmp_path / "store"
    save(root / "a", 1)
    save(root / "b", 7)
    mount = ckpt(root)
    kept = mount.path / "b" / "tensors" / "w"
    inode = kept.stat().st_ino
    with open(kept, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, 0) == bytes_of(7)[:100]
        yield mount, root
        # Whatever happened to `a`, nothing happened to `b`.
        assert file.readall() == bytes_of(7)
        assert kept.stat().st_ino == inode
        assert kept.read_bytes() == bytes_of(7)


def test_overwritten_in_place(two, old):
    mount, root = two
    path = mount.path / "a" / "tensors" / "w"
    npy = mount.path / "a" / "npy" / "w.npy"
    part = path.parent / "w[3:5]"
    assert part.read_bytes() == bytes_of(1)[:8192]
    inodes = {p.stat().st_ino for p in (path, npy, part)}
    files = [old(path, 1), old(part, 1)]
    header = npy.read_bytes()[:-SIZE]
    save(root / "a", 2)
    for file in files:
        assert file.read() in (0, *(getattr(util.errno, n) for n in GONE))
    becomes(path, bytes_of(1), bytes_of(2))
    becomes(npy, header + bytes_of(1), header + bytes_of(2))
    becomes(part, bytes_of(1)[:8192], bytes_of(2)[:8192])
    assert not inodes & {p.stat().st_ino for p in (path, npy, part)}
    files[0].expect_stale(lambda: os.stat(path))
    util.same_errno(files[1].read(), "ESTALE")


def test_overwritten_with_other_tensors(two, old):
    mount, root = two
    path = mount.path / "a" / "tensors" / "w"
    file = old(path, 1)
    assert os.listdir(path.parent) == ["w"]
    save(root / "a", 2, shape=(300, 50), extra=["v", "x.y"])
    becomes(path, bytes_of(1), bytes_of(2, 300 * 50 * 4))
    assert set(os.listdir(path.parent)) == {"w", "v", "x.y"}
    assert path.stat().st_size == 300 * 50 * 4
    assert os.getxattr(path, "user.ckptfs.shape") == b"[300,50]"
    assert (mount.path / "a" / "objects" / "step.json").read_text() \
        .strip() == "2"
    assert '"shape":[300,50]' in (mount.path / "a" / "tensors.json") \
        .read_text()
    file.expect_stale(lambda: os.stat(path))
    save(root / "a", 3)
    becomes(path, bytes_of(2, 300 * 50 * 4), bytes_of(3))
    assert os.listdir(path.parent) == ["w"]
    util.same_errno(util.errno_of(os.stat, path.parent / "v"), "ENOENT")


@pytest.mark.filterwarnings("ignore")
def test_overwritten_by_torch(ckpt, tmp_path, old):
    root = tmp_path / "store"
    tensor = torch.full(SHAPE, 1.0)
    dcp.save({"w": tensor}, checkpoint_id=root / "a", no_dist=True)
    mount = ckpt(root)
    path = mount.path / "a" / "tensors" / "w"
    inode = path.stat().st_ino
    file = old(path, 1)
    for value in 2, 3:
        dcp.save({"w": torch.full(SHAPE, float(value))},
                 checkpoint_id=root / "a", no_dist=True)
        becomes(path, bytes_of(value - 1), bytes_of(value))
        state = {"w": torch.zeros(SHAPE)}
        dcp.load(state, checkpoint_id=mount.path / "a", no_dist=True)
        assert torch.equal(state["w"], torch.full(SHAPE, float(value)))
    assert path.stat().st_ino != inode
    file.expect_stale(lambda: os.stat(path))


def test_same_size_and_mtime(two):
    """What only ctime tells is a change, too."""
    mount, root = two
    path = mount.path / "a" / "tensors" / "w"
    assert path.read_bytes() == bytes_of(1)
    inode = path.stat().st_ino
    times = {n: os.stat(root / "a" / n).st_mtime_ns
             for n in os.listdir(root / "a")}
    save(root / "a", 2)
    for name, time in times.items():
        os.utime(root / "a" / name, ns=(time, time))
    becomes(path, bytes_of(1), bytes_of(2))
    assert path.stat().st_ino != inode


def test_marker_vanishes(two, old):
    mount, root = two
    step = mount.path / "a"
    file = old(step / "tensors" / "w", 1)
    (root / "a" / ".metadata").unlink()
    poll(lambda: set(os.listdir(step)) == {"__0_0.distcp", "__1_0.distcp"},
         SOON, "files and no views")
    for view in util.VIEWS:
        poll(lambda v=view: not os.path.lexists(step / v), SOON, view)
    views = mount.path / ".ckptfs" / "views" / "a"
    for view in util.VIEWS:
        poll(lambda v=view: not os.path.lexists(views / v), SOON, view)
    file.expect_old()
    assert (step / "__0_0.distcp").read_bytes() == \
        (root / "a" / "__0_0.distcp").read_bytes()


def test_checkpoint_appears(two):
    mount, root = two
    step = mount.path / "new"
    # Asked for too early; the answer must not stick.
    util.same_errno(util.errno_of(os.stat, step), "ENOENT")
    util.same_errno(util.errno_of(os.stat, step / "tensors" / "w"), "ENOENT")
    save(root / ".hidden", 5)
    (root / "new").mkdir()
    poll(step.is_dir, SOON, "the folder")
    for name in ("__0_0.distcp", "__1_0.distcp"):
        shutil.copy(root / ".hidden" / name, root / "new" / name)
    shutil.copy(root / ".hidden" / ".metadata",
                root / "new" / ".metadata.tmp")
    poll(lambda: len(os.listdir(step)) == 3, SOON, "the files")
    assert ".metadata.tmp" in os.listdir(step)
    for view in util.VIEWS:
        assert not os.path.lexists(step / view)
    os.rename(root / "new" / ".metadata.tmp", root / "new" / ".metadata")
    poll(lambda: os.path.islink(step / "tensors"), SOON, "the views")
    assert (step / "tensors" / "w").read_bytes() == bytes_of(5)
    poll(lambda: set(util.VIEWS) <= set(os.listdir(step)), SOON, "listed")
    assert "new" in os.listdir(mount.path)


def test_growing_file_of_an_open_checkpoint(two):
    """Nothing of it is remembered: size and bytes are those of the store."""
    mount, root = two
    (root / "new").mkdir()
    step = mount.path / "new"
    poll(step.is_dir, SOON, "the folder")
    with open(root / "new" / "__0_0.distcp", "wb", buffering=0) as file:
        total = b""
        for part in (b"a" * 10, b"b" * 5000, b"c" * 100000):
            file.write(part)
            total += part
            poll(lambda: read_or_none(step / "__0_0.distcp") == total, SOON,
                 "%d bytes" % len(total))
            assert (step / "__0_0.distcp").stat().st_size == len(total)


def test_removed(two, old):
    mount, root = two
    step = mount.path / "a"
    file = old(step / "tensors" / "w", 1)
    link = os.path.realpath(step / "tensors")
    subprocess.run(["rm", "-rf", root / "a"], check=True)
    poll(lambda: os.listdir(mount.path) == ["b"], SOON, "only b")
    poll(lambda: not os.path.lexists(step), SOON, "no a")
    poll(lambda: not os.path.lexists(link), SOON, "no views of a")
    file.read()
    save(root / "a", 9)
    poll(lambda: os.path.lexists(step / "tensors"), SOON, "a again")
    becomes(step / "tensors" / "w", bytes_of(9), bytes_of(9))
    assert (step / "tensors" / "w").stat().st_ino != file.inode
    file.read()


def test_renamed(two, old):
    """tmp-1 becomes step-1, as some trainers commit."""
    mount, root = two
    file = old(mount.path / "a" / "tensors" / "w", 1)
    os.rename(root / "a", root / "c")
    path = mount.path / "c" / "tensors" / "w"
    becomes(path, bytes_of(1), bytes_of(1))
    poll(lambda: not os.path.lexists(mount.path / "a"), SOON, "no a")
    poll(lambda: set(os.listdir(mount.path)) == {"b", "c"}, SOON, "b and c")
    # The old file either goes on with the old bytes or is stale.
    assert file.read() in (0, util.errno.ESTALE, util.errno.EIO)


def test_replaced_by_another(two, old):
    """The folders change places: the name tells who one is."""
    mount, root = two
    save(root / ".next", 4)
    path = mount.path / "a" / "tensors" / "w"
    file = old(path, 1)
    os.rename(root / "a", root / ".previous")
    os.rename(root / ".next", root / "a")
    becomes(path, bytes_of(1), bytes_of(4))
    assert path.stat().st_ino != file.inode


def test_truncated_underneath(two):
    mount, root = two
    path = mount.path / "a" / "tensors" / "w"
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    assert os.pread(direct, 4096, 0) == bytes_of(1)[:4096]
    os.truncate(root / "a" / "__1_0.distcp", 100)
    number = util.errno_of(os.pread, direct, SIZE // 4, 0)
    util.same_errno(number, "EIO", "ESTALE")
    os.close(direct)
    # It is not the daemon that the SIGBUS of a mapping hits.
    assert (mount.path / "b" / "tensors" / "w").read_bytes() == bytes_of(7)


def test_refused_then_repaired(ckpt, tmp_path):
    root = tmp_path / "store"
    save(root / "a", 1)
    good = (root / "a" / ".metadata").read_bytes()
    (root / "a" / ".metadata").write_bytes(good[:500])
    mount = ckpt(root, expect_log=[r"ckptfs: error: .*a/\.metadata: byte"])
    stored = {".metadata", "__0_0.distcp", "__1_0.distcp"}
    assert set(os.listdir(mount.path / "a")) == stored
    (root / "a" / ".metadata").write_bytes(good)
    path = mount.path / "a" / "tensors" / "w"
    becomes(path, bytes_of(1), bytes_of(1))
    (root / "a" / ".metadata").write_bytes(good[:700])
    poll(lambda: set(os.listdir(mount.path / "a")) == stored, SOON,
         "no views of a refused checkpoint")
    # One refusal, one line; not one for each look at the folder.
    for _ in range(5):
        os.listdir(mount.path / "a")
    assert mount.log().count("ckptfs: error:") == 2


TRAINER = """
import os, shutil, sys, torch
import torch.distributed.checkpoint as dcp
root, steps, keep = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for step in range(steps):
    state = {"w": torch.full((300, 500), float(step)), "step": step,
             "b": torch.arange(1000) + step}
    dcp.save(state, checkpoint_id=os.path.join(root, "step-%d" % step),
             no_dist=True)
    if step >= keep:
        # The loader names the step that it is done with.
        shutil.rmtree(os.path.join(root, sys.stdin.readline().strip()))
"""


def load_step(folder, step):
    state = {"w": torch.zeros(300, 500), "step": -1,
             "b": torch.zeros(1000, dtype=torch.int64)}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    assert state["step"] == step
    assert torch.equal(state["w"], torch.full((300, 500), float(step)))
    assert torch.equal(state["b"], torch.arange(1000) + step)


def look_at_everything(folder):
    """What makes the kernel remember attributes of unfinished files."""
    for base, folders, names in os.walk(folder):
        for name in folders + names:
            util.errno_of(os.stat, os.path.join(base, name))


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keep", [1000, 6], ids=["all", "last 6"])
def test_load_while_a_trainer_saves(ckpt, tmp_path, keep):
    steps = 25
    root = tmp_path / "store"
    root.mkdir()
    mount = ckpt(root)
    trainer = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", TRAINER, str(root), str(steps),
         str(keep)], stdin=subprocess.PIPE, text=True)
    try:
        last, loaded = -1, 0
        while last < steps - 1:
            look_at_everything(mount.path)
            before = last
            last, new = load_newest(mount.path, last)
            loaded += new
            for step in range(max(before, 0), min(last, steps - keep)):
                trainer.stdin.write("step-%d\n" % step)
            trainer.stdin.flush()
            assert trainer.poll() in (None, 0)
        assert trainer.wait(util.patience(30)) == 0
    finally:
        trainer.kill()
        trainer.wait()
    assert loaded > 1
    left = {"step-%d" % s for s in range(max(0, steps - keep), steps)}
    poll(lambda: set(os.listdir(mount.path)) == left, SOON, "the steps left")
    for name in left:
        load_step(mount.path / name, int(name[5:]))


def load_newest(folder, last):
    """Load the newest finished step and compare; (its number, 0 or 1)."""
    finished = [int(n[5:]) for n in os.listdir(folder)
                if os.path.exists(folder / n / ".metadata")]
    if max(finished, default=-1) <= last:
        return last, 0
    step = max(finished)
    load_step(folder / ("step-%d" % step), step)
    path = folder / ("step-%d" % step) / "tensors" / "w"
    want = util.tensor_bytes(torch.full((300, 500), float(step)))
    becomes(path, want, want)
    return step, 1
