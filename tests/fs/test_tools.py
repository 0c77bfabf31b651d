"""The commands that people run on a mount: dd, cp, tar, rsync, du, find."""

import os
import shutil
import subprocess

import numpy as np
import pytest

import util
from sample import STEP


def run(*command, **kwargs):
    """The command's output; anything on stderr is a failure."""
    done = subprocess.run([str(c) for c in command], capture_output=True,
                          **kwargs)
    assert done.returncode == 0 and done.stderr == b"", (command, done)
    return done.stdout


@pytest.mark.parametrize("options, span", [
    (["bs=1M"], (0, None)),
    (["bs=4097"], (0, None)),
    (["bs=16M", "iflag=direct"], (0, None)),
    (["bs=65536", "skip=3", "count=5"], (3 * 65536, 5 * 65536)),
    (["bs=1000", "skip=123457", "count=4001", "iflag=skip_bytes,count_bytes"],
     (123457, 4001)),
    (["bs=512K", "iflag=direct", "skip=1", "count=2"], (1 << 19, 1 << 20))],
    ids=["1M", "odd", "direct", "blocks", "bytes", "direct-blocks"])
@pytest.mark.parametrize("name", ["rows", "cols", "fine"])
def test_dd(files, tmp_path, name, options, span):
    out = tmp_path / "out"
    run("dd", "if=%s" % files.raw(name), "of=%s" % out, "status=none",
        *options)
    offset, size = span
    want = files.oracle[name][offset:]
    assert out.read_bytes() == (want if size is None else want[:size])


def test_dd_of_a_slice(files, tmp_path):
    run("dd", "if=%s" % (files.step / "tensors" / "rows[0:1024,:]"),
        "of=%s" % (tmp_path / "part.bin"), "status=none")
    assert (tmp_path / "part.bin").read_bytes() == \
        files.oracle["rows"][:1024 * 2048]


def test_readers(files, tmp_path):
    for name in ("cols", "odd", "empty", "scalar"):
        path, data = files.raw(name), files.oracle[name]
        assert run("cat", path) == data
        assert run("sha256sum", path).split()[0].decode() == util.sha256(data)
        assert run("wc", "-c", path).split()[0] == str(len(data)).encode()
        assert run("head", "-c", "1001", path) == data[:1001]
        assert run("tail", "-c", "1001", path) == data[-1001:]
        run("cp", path, tmp_path / name)
        run("cmp", path, tmp_path / name)
        run("cp", "--sparse=always", "--reflink=auto", path,
            tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == data
    broken = tmp_path / "cols"
    with open(broken, "r+b") as file:
        file.seek(7654321)
        byte = file.read(1)
        file.seek(7654321)
        file.write(bytes([byte[0] ^ 1]))
    done = subprocess.run(["cmp", files.raw("cols"), broken],
                          capture_output=True, text=True)
    assert done.returncode == 1 and "byte 7654322" in done.stdout


def check_copy(copy, original):
    """Files as stored, views as the same links, nothing else."""
    entries = util.tree(copy)
    assert util.without_links(entries) == util.tree(original)
    links = {k for k, v in entries.items() if v[0] == "link"}
    assert links == {os.path.join(step, view) for view in util.VIEWS
                     for step in ("step-1", "sub/turned")}
    assert not os.path.lexists(copy / ".ckptfs")


def test_cp_of_the_mount(files, tmp_path):
    run("cp", "-r", files.mount, tmp_path / "copy")
    check_copy(tmp_path / "copy", files.root)
    run("cp", "-a", files.mount, tmp_path / "archive")
    check_copy(tmp_path / "archive", files.root)


def test_tar_of_the_mount(files, tmp_path):
    run("tar", "-C", files.mount, "-cf", tmp_path / "all.tar", ".")
    (tmp_path / "copy").mkdir()
    run("tar", "-C", tmp_path / "copy", "-xf", tmp_path / "all.tar")
    check_copy(tmp_path / "copy", files.root)
    run("tar", "-C", files.mount, "--compare", "-f", tmp_path / "all.tar")
    run("tar", "-C", files.mount, "--xattrs", "--sparse", "-cf",
        tmp_path / "more.tar", ".")


def test_rsync_of_the_mount(files, tmp_path):
    run("rsync", "-a", "%s/" % files.mount, tmp_path / "copy")
    check_copy(tmp_path / "copy", files.root)
    again = run("rsync", "-a", "--itemize-changes", "--checksum",
                "%s/" % files.mount, tmp_path / "copy")
    assert again == b""


def test_du_of_the_mount(files):
    """Each stored byte once: what is more, are folders and links."""
    def sizes(folder):
        total = int(run("du", "-sb", folder).split()[0])
        for base, folders, names in os.walk(folder):
            total -= os.lstat(base).st_size
            total -= sum(os.lstat(os.path.join(base, n)).st_size
                         for n in folders + names
                         if os.path.islink(os.path.join(base, n)))
        return total

    stored = sum(len(v[1]) for v in util.tree(files.root).values()
                 if v[0] == "file")
    assert sizes(files.mount) == sizes(files.root) == stored
    blocks = int(run("du", "-s", "-B1", files.mount).split()[0])
    assert blocks < stored + (1 << 20)
    # A tensor takes the room of its bytes when it is looked at by itself.
    assert int(run("du", "-b", files.raw("cols")).split()[0]) == \
        len(files.oracle["cols"])


def test_cp_of_a_view(files, tmp_path):
    run("cp", "-r", "%s/." % (files.step / "npy"), tmp_path / "out")
    assert set(os.listdir(tmp_path / "out")) == {n + ".npy" for n in STEP}
    for name in STEP:
        loaded = np.load(tmp_path / "out" / (name + ".npy"))
        assert loaded.tobytes() == files.oracle[name]
    run("cp", "-rL", files.step / "tensors", tmp_path / "raw")
    for name in STEP:
        assert (tmp_path / "raw" / name).read_bytes() == files.oracle[name]
    shutil.copytree(files.step / "objects", tmp_path / "objects")
    assert (tmp_path / "objects" / "note.json").exists()


def test_ls(files):
    assert run("ls", files.step / "tensors").decode().split() == sorted(STEP)
    plain = run("ls", "-A", files.mount / "step-1").decode().split()
    stored = [".metadata"] + ["__%d_0.distcp" % n for n in range(4)]
    assert sorted(plain) == sorted(stored + list(util.VIEWS))
    # The long form looks for ACLs and capabilities of each file.
    text = run("ls", "-la", "%s/" % (files.step / "tensors"),
               env={**os.environ, "LC_ALL": "C"}).decode()
    lines = {line.split()[-1]: line for line in text.splitlines()[1:]}
    assert set(lines) == set(STEP) | {".", ".."}
    for name in STEP:
        assert int(lines[name].split()[4]) == len(files.oracle[name])
        assert lines[name].startswith("-r")


def test_find(files):
    def find(*args):
        return sorted(run("find", files.mount, *args).decode().splitlines())

    links = find("-type", "l", "-printf", "%P\n")
    assert links == sorted("%s/%s" % (step, view) for view in util.VIEWS
                           for step in ("step-1", "sub/turned"))
    assert find("-name", ".ckptfs") == []
    assert find("-type", "d", "-printf", "%P\n") == \
        ["", "step-1", "sub", "sub/turned"]
    found = run("find", "-L", files.step / "tensors", "-size", "+1M",
                "-printf", "%f\n").decode().split()
    # The size is rounded up to whole units before it is compared.
    assert set(found) == {n for n in STEP
                          if len(files.oracle[n]) > 1 << 20}
    number = os.stat(files.raw("tiny")).st_ino
    assert run("find", "-L", files.step / "tensors", "-inum", str(number),
               "-printf", "%f\n").split() == [b"tiny"]


def test_grep_and_diff(files, tmp_path):
    run("cp", "-rL", files.step / "tensors", tmp_path / "raw")
    run("diff", "-r", files.step / "tensors/", tmp_path / "raw")
    assert run("grep", "-c", '"name"', files.step / "tensors.json").strip() \
        == str(len(STEP)).encode()
