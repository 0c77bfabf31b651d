"""Nothing in a mount can be changed: EROFS, whoever asks and wherever."""

import os
import subprocess

import pytest
import util

STEP = "torch-2.6.0/dtensor4"


@pytest.fixture
def places(ckpt, fixtures_dir):
    mount = ckpt(fixtures_dir).path
    step = mount / STEP
    return mount, [step / ".metadata", step / "__0_0.distcp",
                   step / "tensors" / "row", step / "tensors" / "row[0:2]",
                   step / "npy" / "row.npy", step / "objects" / "step.pt",
                   step / "objects" / "step.json", step / "tensors.json"]


@pytest.mark.parametrize("flags", [
    os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC,
    os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_TRUNC,
    os.O_RDWR | os.O_CREAT], ids=["w", "rw", "trunc", "append", "r-trunc",
                                  "create"])
def test_open(places, flags):
    for path in places[1]:
        util.same_errno(util.errno_of(os.open, path, flags, 0o644), "EROFS")


def test_files(places, tmp_path):
    for path in places[1]:
        calls = {
            "chmod": (os.chmod, path, 0o600),
            "chown": (os.chown, path, 1, 1),
            "utime": (os.utime, path),
            "truncate": (os.truncate, path, 0),
            "unlink": (os.unlink, path),
            "setxattr": (os.setxattr, path, "user.x", b"1"),
            "set name": (os.setxattr, path, "user.ckptfs.name", b"1"),
            "removexattr": (os.removexattr, path, "user.ckptfs.name"),
            "link": (os.link, path, path.parent / "new"),
            "rename": (os.rename, path, path.parent / "new"),
        }
        for name, (call, *args) in calls.items():
            number = util.errno_of(call, *args)
            assert number, (path, name)
            util.same_errno(number, "EROFS")
        assert not os.access(path, os.W_OK)
        assert os.access(path, os.R_OK)


@pytest.mark.parametrize("where", ["", STEP, STEP + "/tensors",
                                   STEP + "/npy", STEP + "/objects",
                                   ".ckptfs", ".ckptfs/views"])
def test_folders(places, where):
    folder = places[0] / where
    new = folder / "new"
    calls = [(os.mkdir, new), (os.mknod, new, 0o600), (os.mkfifo, new),
             (os.symlink, "target", new),
             (os.open, new, os.O_CREAT | os.O_WRONLY),
             (os.open, folder, os.O_TMPFILE | os.O_RDWR),
             (os.setxattr, folder, "user.x", b"1"),
             (os.chmod, folder, 0o777), (os.utime, folder)]
    for call, *args in calls:
        number = util.errno_of(call, *args)
        # The kernel may say first that FUSE has no unnamed files.
        util.same_errno(number, "EROFS", *(
            ["EOPNOTSUPP"] if args[-1] == os.O_TMPFILE | os.O_RDWR else []))
    assert not os.access(folder, os.W_OK)


def test_rm_rf(places, fixtures_dir):
    before = util.tree(fixtures_dir)
    done = subprocess.run(["rm", "-rf", str(places[0] / "torch-2.6.0")],
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert util.tree(fixtures_dir) == before


def test_the_source_is_not_touched(ckpt, store):
    folder = store("torch-2.6.0/dtensor4")

    def look():
        return {name: (info.st_ino, info.st_mtime_ns, info.st_ctime_ns,
                       info.st_size) for name in sorted(os.listdir(folder))
                for info in [os.stat(folder / name)]}

    before = look()
    mount = ckpt(folder)
    for name in os.listdir(mount.path / "tensors"):
        (mount.path / "tensors" / name).read_bytes()
    mount.unmount()
    assert look() == before
