"""An open file outlives its name, as on any file system."""

import concurrent.futures
import mmap
import os
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp

import union
import util
from mounting import SLOW, poll
from test_union import step_of, stores  # noqa: F401
from union import direct

SHAPE = (2048, 512)
SIZE = 2048 * 512 * 4
SOON = 5


def bytes_of(value):
    return util.tensor_bytes(torch.full(SHAPE, float(value)))


def save(folder, value):
    tensor = torch.full(SHAPE, float(value))
    return util.save_chunks(folder, {"w": (tensor, util.grid(SHAPE, (4, 1)))},
                            files=2)


def whole(fd, size):
    """All that is open as `fd`, through O_DIRECT or not."""
    return b"".join(os.pread(fd, 1 << 20, offset)
                    for offset in range(0, size, 1 << 20))


def gone(path):
    """The kernel knows of it, too."""
    poll(lambda: util.errno_of(os.stat, path) == util.errno.ENOENT, SOON,
         "no %s" % path)


# Ways to lose a name.  Each gets the step in the store and a new one.

def unlink(step, new):
    for name in os.listdir(step):
        (step / name).unlink()


def rename_over(step, new):
    for name in os.listdir(new):
        os.rename(new / name, step / name)


def remove(step, new):
    shutil.rmtree(step)


def move(step, new):
    os.rename(step, step.parent / "elsewhere")


def exchange(step, new):
    os.rename(step, step.parent / "elsewhere")
    os.rename(new, step)


LOSSES = pytest.mark.parametrize(
    "lose", (unlink, rename_over, remove, move, exchange))
FILES = pytest.mark.parametrize(
    "name", ("tensors/w", "npy/w.npy", "tensors/w[100:900,:]",
             "safetensors/model.safetensors", "__1_0.distcp"))


@pytest.fixture
def step(ckpt, tmp_path):
    """A mounted step, its folder in the store, and one to put in its place."""
    root = tmp_path / "store"
    save(root / "step", 1)
    mount = ckpt(root)
    return mount.path / "step", root / "step", save(tmp_path / "new", 2)


@LOSSES
@FILES
def test_open(step, name, lose):
    """Read in any way, with the size and the inode that it had."""
    path, stored, new = step
    path = path / name
    want = path.read_bytes()
    fds = [os.open(path, os.O_RDONLY | flag) for flag in (0, os.O_DIRECT)]
    try:
        before = os.fstat(fds[0])
        # Cached reads of later must not come out of the page cache.
        for fd in fds:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        lose(stored, new)
        poll(lambda: util.errno_of(os.stat, path) == util.errno.ENOENT or
             os.stat(path).st_ino != before.st_ino, SOON, "the change")
        for fd in fds:
            after = os.fstat(fd)
            assert (after.st_size, after.st_ino) == \
                (before.st_size, before.st_ino)
            assert whole(fd, len(want)) == want
    finally:
        for fd in fds:
            os.close(fd)
    if lose in (rename_over, exchange):
        assert path.read_bytes() != want


@LOSSES
@FILES
def test_mapped(step, name, lose):
    """A mapping of which no page was read yet: no SIGBUS."""
    path, stored, new = step
    path = path / name
    fd = os.open(path, os.O_RDONLY)
    want = path.read_bytes()
    inode = os.fstat(fd).st_ino
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as view:
        os.close(fd)
        lose(stored, new)
        poll(lambda: util.errno_of(os.stat, path) == util.errno.ENOENT or
             os.stat(path).st_ino != inode, SOON, "the change")
        assert view[:] == want


def test_rewritten_in_place_after_its_name_went(step):
    """Whoever has it open elsewhere may still write to it: that is seen."""
    path, stored, _ = step
    with open(path / "tensors/w", "rb", buffering=0) as file, \
            open(stored / "__1_0.distcp", "r+b", buffering=0) as writer:
        assert os.pread(file.fileno(), 100, SIZE // 2) == \
            bytes_of(1)[:100]
        shutil.rmtree(stored)
        gone(path / "tensors/w")
        writer.write(b"others")
        numbers = {util.errno_of(direct_read, file.fileno(), offset)
                   for offset in range(0, SIZE, SIZE // 4)}
    # Two of the four shards lie in the file that nobody wrote to.
    assert numbers == {0, util.errno.ESTALE}


def direct_read(fd, offset):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, 100, offset) == bytes_of(1)[:100]


def test_never_opened(step):
    """A path is no promise: who opens too late finds nothing."""
    path, stored, _ = step
    assert (path / "tensors/w").stat().st_size == SIZE
    shutil.rmtree(stored)
    util.same_errno(util.errno_of(direct, path / "tensors/w"),
                    "ENOENT", "ESTALE")
    gone(path / "tensors/w")


def test_open_folders(step):
    """Folders of the store and of views, opened before it moved."""
    path, stored, _ = step
    fds = [os.open(path / name, os.O_RDONLY | os.O_DIRECTORY)
           for name in (".", "tensors")]
    try:
        names = [sorted(os.listdir(fd)) for fd in fds]
        os.rename(stored, stored.parent / "elsewhere")
        gone(path)
        assert [sorted(os.listdir(fd)) for fd in fds] == names
    finally:
        for fd in fds:
            os.close(fd)


def daemon_holds(pid, folder):
    """How many descriptors of a process are files that were in a folder."""
    found = 0
    for entry in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, entry))
        except OSError:
            continue
        found += target.startswith(str(folder) + "/")
    return found


def test_what_was_read_takes_no_space(ckpt, tmp_path):
    """Of what is removed after it was closed, nothing is kept: a mount beside a
    trainer that rotates its steps would fill the disk."""
    root = tmp_path / "store"
    save(root / "step", 1)
    mount = ckpt(root)
    assert (mount.path / "step/tensors/w").read_bytes() == bytes_of(1)
    assert daemon_holds(mount.pid, root / "step") > 0
    shutil.rmtree(root / "step")
    # Nobody looks at it again.
    poll(lambda: daemon_holds(mount.pid, root / "step") == 0, 10,
         "a daemon that keeps nothing")


class LosesItsStep(dcp.DefaultLoadPlanner):
    """Removes the step when the first tensor of it was loaded."""

    def __init__(self, stored):
        super().__init__()
        self.stored = stored
        self.count = 0

    def commit_tensor(self, read_item, tensor):
        super().commit_tensor(read_item, tensor)
        self.count += 1
        if self.count == 1:
            shutil.rmtree(self.stored)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("turn", range(5))
def test_retention_removes_what_is_loaded(ckpt, tmp_path, turn):
    """dcp.load to its end, as from a disk, though nothing is left but it."""
    root = tmp_path / "store"
    made = {"w%d" % i: torch.rand(256, 1024) for i in range(8)}
    dcp.save(made, checkpoint_id=root / "step", no_dist=True)
    mount = ckpt(root)
    state = {name: torch.zeros(256, 1024) for name in made}
    planner = LosesItsStep(root / "step")
    dcp.load(state, checkpoint_id=mount.path / "step", planner=planner,
             no_dist=True)
    assert planner.count == len(made)
    assert not (root / "step").exists()
    assert all(torch.equal(state[name], made[name]) for name in made)
    gone(mount.path / "step/.metadata")


# Over ranks

RANKS = 3


@pytest.fixture
def spread(job, stores):  # noqa: F811
    """A shard of 1 MiB on each of three ranks, and its bytes."""
    made = stores(RANKS)
    tensor = step_of(made, RANKS, rows=3072, width=256)
    return job(stores.pattern, RANKS, options="force_mpi"), made, \
        util.tensor_bytes(tensor)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", ("tensors/w", "__2_0.distcp"))
def test_over_ranks(spread, name):
    """Every rank reads on what was removed from every store."""
    the_job, made, _ = spread
    paths = [mount / "step" / name for mount in the_job.mounts]
    want = paths[0].read_bytes()
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECT) for path in paths]
    maps = [mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) for fd in fds]
    try:
        for folder in made:
            shutil.rmtree(folder / "step")
        for path in paths:
            gone(path)
        with concurrent.futures.ThreadPoolExecutor(RANKS) as pool:
            assert all(found == want for found in
                       pool.map(whole, fds, [len(want)] * RANKS))
        assert all(view[:] == want for view in maps)
    finally:
        for view in maps:
            view.close()
        for fd in fds:
            os.close(fd)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("how", ("closed", "killed"))
def test_what_is_held_is_let_go(spread, how):
    """When it is closed, and when the rank that had it open is lost: disks are
    not kept full of what nobody can read."""
    the_job, made, want = spread
    file = open(the_job.mounts[0] / "step/tensors/w", "rb", buffering=0)
    assert file.read(100) == want[:100]
    shutil.rmtree(made[1] / "step")
    gone(the_job.mounts[0] / "step/__1_0.distcp")
    assert daemon_holds(the_job.pid(1), made[1] / "step") > 0
    if how == "killed":
        the_job.allow_log.append(r"ckptfs: error: ")
        the_job.kill(0)
        the_job.wait_gone(0)
    file.close()
    poll(lambda: daemon_holds(the_job.pid(1), made[1] / "step") == 0,
         20 * SLOW, "a rank that holds nothing")


@pytest.mark.timeout(90)
@pytest.mark.parametrize("fault", ("kill", "stop"))
def test_another_replica(job, stores, fault):  # noqa: F811
    """A shard lies on two ranks; the one that it is read from is struck."""
    made = stores(RANKS)
    tensor = step_of(made, 2, rows=2048, width=512, where=[1, 1])
    for name in os.listdir(made[1] / "step"):
        union.place(made[1] / "step", made[2] / "step", name)
    data = util.tensor_bytes(tensor)
    the_job = job(stores.pattern, RANKS, options="force_mpi,deadline=4",
                  allow_log=[r"ckptfs: error: "])
    with open(the_job.mounts[0] / "step/tensors/w", "rb",
              buffering=0) as file, \
            open(the_job.mounts[0] / "step/__0_0.distcp", "rb",
                 buffering=0) as stored:
        file_bytes = (made[2] / "step/__0_0.distcp").read_bytes()
        assert os.pread(file.fileno(), 4096, 0) == data[:4096]
        assert os.pread(stored.fileno(), 4096, 0) == file_bytes[:4096]
        if fault == "kill":
            the_job.kill(1)
            the_job.wait_gone(1)
        else:
            the_job.stop(1)
        for fd, want in (file.fileno(), data), (stored.fileno(), file_bytes):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            try:
                assert whole(fd, len(want)) == want
            except OSError:
                print(the_job.log(), os.readlink("/proc/self/fd/%d"%fd))
                raise
        # And whoever opens it now has it, too.
        assert direct(the_job.mounts[0] / "step/tensors/w") == data
        if fault == "stop":
            the_job.cont(1)
