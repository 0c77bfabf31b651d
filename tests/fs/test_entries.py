"""Attributes, links, listings: what programs see before they read."""

import ctypes
import json
import mmap
import os
import stat
import subprocess

import torch

import util
from sample import NAMES, STEP, open_file, pread_all, spans


def test_stat(files):
    for name, data in files.oracle.items():
        for path in files.raw(name), files.npy(name):
            info = path.stat()
            assert stat.S_ISREG(info.st_mode)
            assert info.st_mode & 0o777 & ~0o444 == 0
            assert info.st_mode & 0o400
            assert info.st_nlink == 1
            assert info.st_size == (len(data) if path == files.raw(name)
                                    else len(files.npy_bytes(name)))
            assert info.st_ino == path.stat().st_ino
    numbers = {files.raw(n).stat().st_ino for n in NAMES}
    assert len(numbers | {files.npy(n).stat().st_ino for n in NAMES}) == \
        2 * len(NAMES)
    for entry in os.scandir(files.step / "tensors"):
        assert entry.inode() == os.stat(entry.path).st_ino
        assert entry.is_file(follow_symlinks=False)
    assert os.statvfs(files.step / "tensors").f_namemax >= 255


def test_stored_files_are_unchanged(files, rng):
    root = files.root
    want = util.tree(root)
    assert util.without_links(util.tree(files.mount)) == want
    for name in want:
        mine, theirs = os.stat(files.mount / name), os.stat(root / name)
        assert stat.S_IFMT(mine.st_mode) == stat.S_IFMT(theirs.st_mode)
        if want[name][0] != "file":
            continue
        assert mine.st_size == theirs.st_size
        assert mine.st_mtime_ns == theirs.st_mtime_ns
        with open_file(files.mount / name) as file:
            for offset, size in spans(rng, theirs.st_size, 5):
                assert pread_all(file.fileno(), size, offset) == \
                    want[name][1][offset:offset + size]
    big = "step-1/__0_0.distcp"
    with open_file(files.mount / big) as file, mmap.mmap(
            file.fileno(), 0, prot=mmap.PROT_READ) as view:
        assert view[:] == want[big][1]


def test_xattrs(files):
    keys = ["name", "dtype", "torch_dtype", "shape", "shards"]
    want = sorted("user.ckptfs." + key for key in keys)
    for path in files.raw("cols"), files.npy("cols"), \
            files.step / "tensors" / "cols[3:5]":
        assert sorted(os.listxattr(path)) == want
        assert os.getxattr(path, "user.ckptfs.name") == b"cols"
        shape = b"[2,2048]" if path.name.endswith("]") else b"[1024,2048]"
        assert os.getxattr(path, "user.ckptfs.shape") == shape
        assert util.getxattr_into(path, "user.ckptfs.shape", 0)[0] == \
            len(shape)
        code, number = util.getxattr_into(path, "user.ckptfs.shape", 3)
        assert code == -1
        util.same_errno(number, "ERANGE")
    note = files.step / "objects" / "note.pt"
    assert util.xattrs(note) == {"user.ckptfs.name": "note"}


def test_shards_beyond_an_attribute(ckpt, tmp_path):
    """The kernel carries 64 KiB; tensors.json has what is longer."""
    tensor = torch.arange(2000)
    boxes = util.grid((2000,), (1000,))
    util.save_chunks(tmp_path / "many", {"w": (tensor, boxes)})
    mount = ckpt(tmp_path / "many").path
    path = mount / "tensors" / "w"
    util.same_errno(util.errno_of(os.getxattr, path, "user.ckptfs.shards"),
                    "E2BIG")
    assert os.getxattr(path, "user.ckptfs.shape") == b"[2000]"
    assert "user.ckptfs.shards" in os.listxattr(path)
    part = json.loads(os.getxattr(mount / "tensors" / "w[100:104]",
                                  "user.ckptfs.shards"))
    assert [s["box"]["offsets"] for s in part] == [[100], [102]]
    entry, = json.loads((mount / "tensors.json").read_text())
    assert [s["box"]["offsets"] for s in entry["shards"]] == \
        [list(offsets) for offsets, _ in boxes]
    assert path.read_bytes() == util.tensor_bytes(tensor)


def test_unknown_xattrs_are_nodata(files):
    probes = ("user.ckptfs.xxh3", "user.ckptfs", "user.ckptfs.namex",
              "user.x", "security.selinux", "security.capability",
              "system.posix_acl_access", "system.posix_acl_default",
              "trusted.overlay.opaque")
    places = (files.mount, files.step, files.step / "tensors",
              files.raw("cols"), files.npy("cols"),
              files.step / "objects" / "note.pt",
              files.step / "objects" / "note.json",
              files.step / "tensors.json", files.step / ".metadata")
    for place in places:
        for name in probes:
            # ACLs are refused by the kernel itself, with its own word.
            allowed = ("ENODATA", "EOPNOTSUPP") if name.startswith(
                "system.") else ("ENODATA",)
            util.same_errno(util.errno_of(os.getxattr, place, name), *allowed)
    for place in places[:3] + places[6:]:
        assert [n for n in os.listxattr(place)
                if n != "user.ckptfs.name"] == []


def test_getfattr(files):
    done = subprocess.run(["getfattr", "-d", "--absolute-names",
                           files.raw("bf16")], capture_output=True, text=True,
                          check=True)
    assert 'user.ckptfs.dtype="BF16"' in done.stdout
    assert 'user.ckptfs.shape="[129,64]"' in done.stdout
    assert 'user.ckptfs.torch_dtype="bfloat16"' in done.stdout
    assert done.stderr == ""


# Names and links

def test_links(files):
    for folder, depth in ((files.step, "step-1"),
                          (files.mount / "sub" / "turned", "sub/turned")):
        for view in util.VIEWS:
            target = os.readlink(folder / view)
            assert not target.startswith("/")
            assert os.path.realpath(folder / view) == str(
                files.mount / ".ckptfs" / "views" / depth / view)
            # Any other mode would be a difference for rsync, every time.
            assert os.lstat(folder / view).st_mode == stat.S_IFLNK | 0o777
            assert os.lstat(folder / view).st_size == len(target)
        kinds = {e.name: e.is_symlink() for e in os.scandir(folder)}
        assert {n for n, link in kinds.items() if link} == set(util.VIEWS)


def test_links_of_the_root(ckpt, sample):
    mount = ckpt(sample.root / "step-1").path
    for view in util.VIEWS:
        assert os.readlink(mount / view) == ".ckptfs/views/" + view
    assert (mount / "tensors" / "tiny").read_bytes() == sample.oracle["tiny"]


def test_hidden_folder(files):
    assert ".ckptfs" not in os.listdir(files.mount)
    assert set(os.listdir(files.mount)) == {"step-1", "sub"}
    assert os.path.isdir(files.mount / ".ckptfs")
    assert "views" in os.listdir(files.mount / ".ckptfs")
    assert set(os.listdir(files.mount / ".ckptfs" / "views")) == \
        {"step-1", "sub"}
    assert set(os.listdir(files.mount / ".ckptfs" / "views" / "sub")) == \
        {"turned"}
    assert set(os.listdir(files.mount / ".ckptfs" / "views" / "step-1")) == \
        set(util.VIEWS)
    for place in (files.step, files.mount / "sub"):
        assert not os.path.lexists(place / ".ckptfs")


def test_working_folder_in_a_view(files):
    def run(*command, cwd):
        return subprocess.run(command, cwd=cwd, capture_output=True,
                              check=True).stdout

    view = files.step / "tensors"
    assert run("cat", "tiny", cwd=view) == files.oracle["tiny"]
    assert set(run("ls", cwd=view).decode().split()) == set(STEP)
    assert run("/bin/pwd", "-P", cwd=view).decode().strip() == \
        str(files.mount / ".ckptfs" / "views" / "step-1" / "tensors")
    assert run("ls", "..", cwd=view).decode().split() == sorted(util.VIEWS)
    assert run("cat", "../npy/tiny.npy", cwd=view) == files.npy_bytes("tiny")


def test_wrong_kinds_and_names(files):
    view = files.step / "tensors"
    cases = [
        (os.listdir, (files.raw("tiny"),), "ENOTDIR"),
        (os.stat, (files.raw("tiny") / "x",), "ENOTDIR"),
        (os.open, (files.raw("tiny"), os.O_RDONLY | os.O_DIRECTORY),
         "ENOTDIR"),
        (os.stat, (view / "absent",), "ENOENT"),
        (os.stat, (view / "tiny.npy",), "ENOENT"),
        (os.stat, (files.step / "npy" / "tiny",), "ENOENT"),
        (os.stat, (view / "tiny[0:1025]",), "ENOENT"),
        (os.stat, (view / "scalar[0]",), "ENOENT"),
        (os.readlink, (files.raw("tiny"),), "EINVAL"),
        (os.open, (files.step / "tensors", os.O_RDONLY | os.O_NOFOLLOW),
         "ELOOP"),
    ]
    for call, args, name in cases:
        util.same_errno(util.errno_of(call, *args), name)
    long = view / ("x" * 256)
    util.same_errno(util.errno_of(os.stat, long), "ENOENT", "ENAMETOOLONG")
    folder = os.open(view, os.O_RDONLY)
    util.same_errno(util.errno_of(os.read, folder, 1), "EISDIR")
    os.close(folder)


def test_slices_are_not_listed(files):
    before = set(os.listdir(files.step / "tensors"))
    part = files.step / "tensors" / "rows[5:9,:]"
    assert part.read_bytes() == files.oracle["rows"][5 * 2048:9 * 2048]
    assert set(os.listdir(files.step / "tensors")) == before


def test_telldir_and_seekdir(ckpt, fixtures_dir):
    """A listing of many blocks can be taken up at any place."""
    class Dirent(ctypes.Structure):
        _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64),
                    ("reclen", ctypes.c_ushort), ("type", ctypes.c_ubyte),
                    ("name", ctypes.c_char * 256)]

    libc = util.LIBC
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.POINTER(Dirent)
    libc.telldir.restype = ctypes.c_long
    for call in libc.readdir, libc.telldir, libc.closedir, libc.rewinddir:
        call.argtypes = [ctypes.c_void_p]
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

    def rest(handle):
        names = []
        while entry := libc.readdir(handle):
            names.append(entry.contents.name)
        return names

    mount = ckpt(fixtures_dir / "torch-2.14.1" / "metadata_2500keys").path
    handle = libc.opendir(os.fsencode(mount / "tensors"))
    assert handle
    names, places = [], []
    while True:
        places.append(libc.telldir(handle))
        entry = libc.readdir(handle)
        if not entry:
            break
        names.append(entry.contents.name)
    assert len(set(names)) == len(names) == 2502
    for index in (1, 2, 3, 700, 2499, 2502):
        libc.seekdir(handle, places[index])
        assert rest(handle) == names[index:]
    libc.rewinddir(handle)
    assert rest(handle) == names
    libc.closedir(handle)
