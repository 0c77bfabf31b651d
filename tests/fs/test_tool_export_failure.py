"""ckptfs export when something is in the way: nothing is left behind."""

import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import threading
import time

import pytest
import torch
from safetensors.torch import save_file

import util
from mounting import SLOW, patience, poll
from test_tool_export import files_below, load, same
from tooling import BAD, FAILED, tool  # noqa: F401

FORMS = ["--safetensors", "--hf", "--npy"]
each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def source(tmp_path):
    """A checkpoint of a few tensors, and what they hold."""
    tensors = {"a": torch.arange(12.).reshape(3, 4), "b": torch.ones(5),
               "c": torch.zeros(2, 2)}
    folder = util.save_chunks(tmp_path / "source", {
        n: (t, util.grid(t.shape, (2,) + (1,) * (t.dim() - 1)))
        for n, t in tensors.items()}, files=2)
    return folder, tensors


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


# Tensors that cannot be read

@each_form
def test_holes(tool, tmp_path, place, form):
    util.save_chunks(tmp_path / "c", {
        "good": (torch.ones(4), [((0,), (4,))]),
        "holey": (torch.ones(8, 2), [((0, 0), (3, 2)), ((5, 0), (3, 2))])})
    done = tool("export", tmp_path / "c", place / "out", form, status=BAD)
    assert "ckptfs export: holey: no shard holds [3:5,:]\n" in done.stderr
    assert files_below(place) == []
    tool("export", tmp_path / "c", place / "out", form, "--select=good")


@each_form
def test_missing_file(tool, source, place, form):
    folder, _ = source
    os.unlink(folder / "__1_0.distcp")
    done = tool("export", folder, place / "out", form, status=BAD)
    assert "ckptfs export: a: there is no __1_0.distcp\n" in done.stderr
    assert files_below(place) == []


@each_form
def test_damaged_item(tool, source, place, form):
    """Its archive ends in zeros: the tensor, the file and the byte are named.
    """
    folder, _ = source
    info = util.items_of(folder)["b", (3,)]
    with open(folder / info.relative_path, "r+b") as file:
        file.seek(info.offset + info.length - 200)
        file.write(b"\0" * 200)
    for _ in range(5):
        done = tool("export", folder, place / "out", form, status=BAD)
        assert done.stderr.startswith(
            "ckptfs export: b: %s: byte " % info.relative_path)
        assert len(done.stderr.splitlines()) == 1
        assert files_below(place) == []


def test_what_was_there_stays(tool, source, place):
    folder, tensors = source
    (place / "out").write_bytes(b"precious")
    os.unlink(folder / "__1_0.distcp")
    tool("export", folder, place / "out", "--safetensors", status=BAD)
    assert (place / "out").read_bytes() == b"precious"
    assert files_below(place) == ["out"]


# Places

def test_a_file_is_replaced(tool, source, place):
    folder, tensors = source
    (place / "out").write_bytes(b"old")
    os.link(place / "out", place / "other")
    tool.quiet("export", folder, place / "out", "--safetensors")
    same(load(place / "out"), tensors)
    assert (place / "other").read_bytes() == b"old"
    assert files_below(place) == ["other", "out"]


def test_modes(tool, source, place):
    old = os.umask(0o027)
    try:
        tool.quiet("export", source[0], place / "file", "--safetensors")
        tool.quiet("export", source[0], place / "dir", "--hf")
    finally:
        os.umask(old)
    assert (place / "file").stat().st_mode & 0o7777 == 0o640
    assert (place / "dir").stat().st_mode & 0o7777 == 0o750
    assert (place / "dir" / "model.safetensors").stat().st_mode & 0o777 == 0o640


def test_links_are_followed(tool, source, place):
    folder, tensors = source
    (place / "far").mkdir()
    (place / "far" / "real").write_bytes(b"old")
    os.symlink("far/real", place / "link")
    tool.quiet("export", folder, place / "link", "--safetensors")
    assert os.readlink(place / "link") == "far/real"
    same(load(place / "far" / "real"), tensors)
    os.symlink("far", place / "folder")
    tool.quiet("export", folder, place / "folder" / "new", "--safetensors")
    same(load(place / "far" / "new"), tensors)
    assert files_below(place / "far") == ["new", "real"]


@pytest.mark.parametrize("form", ["--hf", "--npy"])
def test_an_empty_folder_is_taken(tool, source, place, form):
    (place / "out").mkdir()
    tool.quiet("export", source[0], str(place / "out") + "/", form)
    assert files_below(place)[0] == "out" and len(files_below(place)) > 1


def refused(tool, source, path, form, word):
    before = files_below(path.parent)
    done = tool("export", source, path, form, status=FAILED)
    assert word in done.stderr and str(path) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert files_below(path.parent) == before


def test_places_that_are_refused(tool, source, place):
    folder, _ = source
    (place / "full").mkdir()
    (place / "full" / "x").write_bytes(b"")
    (place / "file").write_bytes(b"")
    os.symlink("nowhere", place / "dangling")
    os.mkfifo(place / "fifo")
    for form in "--hf", "--npy":
        refused(tool, folder, place / "full", form, "not empty")
        refused(tool, folder, place / "file", form, "not a folder")
        refused(tool, folder, folder, form, "not empty")
    refused(tool, folder, place / "full", "--safetensors", "not a file")
    refused(tool, folder, place / "fifo", "--safetensors", "not a file")
    for form in FORMS:
        refused(tool, folder, place / "dangling", form, "leads nowhere")
        done = tool("export", folder, place / "no" / "out", form,
                    status=FAILED)
        assert "No such file or directory" in done.stderr
        done = tool("export", folder, "", form, status=FAILED)
        done = tool("export", folder, place / "file" / "out", form,
                    status=FAILED)
    done = tool("export", folder, "/dev/full", "--safetensors", status=FAILED)
    assert "not a file" in done.stderr


def test_files_of_the_checkpoint_are_refused(tool, source, place):
    folder, tensors = source
    before = util.tree(folder)
    os.symlink(folder / "__0_0.distcp", place / "link")
    for name in ".metadata", "__0_0.distcp", "__1_0.distcp":
        refused(tool, folder, folder / name, "--safetensors",
                "is a file of the checkpoint")
    refused(tool, folder, place / "link", "--safetensors",
            "is a file of the checkpoint")
    assert util.tree(folder) == before
    # Anything else in its folder may be made.
    tool.quiet("export", folder, folder / "new.safetensors", "--safetensors")
    same(load(folder / "new.safetensors"), tensors)
    file = place / "one.safetensors"
    save_file(tensors, file)
    refused(tool, file, file, "--safetensors", "is a file of the checkpoint")


# A disk that is full

@pytest.fixture
def small(tmp_path):
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system")
    point = tmp_path / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point],
                   check=True)
    yield point
    subprocess.run(["umount", "-l", point], check=True)


@each_form
def test_full_disk(tool, tmp_path, small, form):
    tensors = {"w%d" % i: torch.full((60000,), float(i)) for i in range(5)}
    source = util.save_chunks(tmp_path / "c", {
        n: (t, [((0,), (60000,))]) for n, t in tensors.items()})
    (small / "other").write_bytes(b"x" * 5000)
    args = ["--max-shard-size=300KB"] * (form == "--hf")
    done = tool("export", source, small / "out", form, *args, status=FAILED)
    assert "No space left on device" in done.stderr
    assert "are needed" in done.stderr
    assert files_below(small) == ["other"]
    assert os.statvfs(small).f_bfree * 4096 >= (1 << 20) - 5 * 4096
    # With less to write there is room.
    tool("export", source, small / "out", form, "--select=w[01]")
    # The mount point itself cannot be replaced.
    if form != "--safetensors":
        shutil.rmtree(small / "out")
        os.unlink(small / "other")
        done = tool("export", source, small, form, status=FAILED)
        assert "name a folder in it" in done.stderr


def test_no_descriptors(tool, source, place):
    """As many as it needs at once, not one for each file."""
    from tooling import limit_files
    tool("export", source[0], place / "out", "--npy",
         preexec_fn=limit_files(24))
    done = tool("export", source[0], place / "more", "--npy", status=FAILED,
                preexec_fn=limit_files(5))
    assert "Too many open files" in done.stderr
    assert files_below(place) == ["out"] + ["out/" + n + ".npy" for n in "abc"]


@each_form
def test_limit_of_file_size(tool, tmp_path, place, form):
    """The shell's ulimit -f: no signal, no half a file."""
    source = util.save_chunks(tmp_path / "c", {
        "w": (torch.zeros(100000), [((0,), (100000,))])})
    done = tool("export", source, place / "out", form, status=FAILED,
                preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_FSIZE, (100000, 100000)))
    assert "File too large" in done.stderr
    assert files_below(place) == []


# Signals

@pytest.fixture
def large(tmp_path):
    """Half a gigabyte that takes no room: it is all holes of a file."""
    header = json.dumps({"w%d" % i: {
        "dtype": "F32", "shape": [1 << 24],
        "data_offsets": [i << 26, (i + 1) << 26]} for i in range(8)}).encode()
    header += b" " * (-len(header) % 8)
    path = tmp_path / "large.safetensors"
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (8 << 26))
    return path


def hidden(place):
    return [p for p in files_below(place) if p.startswith(".out.ckptfs-")]


@each_form
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM,
                                    signal.SIGHUP], ids=lambda n: n.name)
def test_signals(tool, large, place, form, number):
    """Whatever was written is removed, and it ends as by the signal."""
    process = tool.start("export", large, place / "out", form, "--dtype=f16")
    poll(lambda: hidden(place) or process.poll() is not None, 20, "a file")
    time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=patience(30))
    assert process.returncode == -number
    assert files_below(place) == []


def test_ignored_signals(tool, large, place):
    """nohup(1), and what a shell put into the background."""
    process = tool.start("export", large, place / "out", "--safetensors",
                         "--dtype=f16", preexec_fn=lambda: signal.signal(
                             signal.SIGHUP, signal.SIG_IGN))
    poll(lambda: hidden(place) or process.poll() is not None, 20, "a file")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=patience(60))
    assert process.returncode == 0
    assert files_below(place) == ["out"]


def test_source_changes(tool, large, place):
    """Half old and half new is worse than nothing."""
    process = tool.start("export", large, place / "out", "--safetensors",
                         "--dtype=f16")
    poll(lambda: hidden(place) or process.poll() is not None, 20, "a file")
    with open(large, "r+b") as file:
        file.seek(5 << 20)
        file.write(b"\1" * 4096)
    _, error = process.communicate(timeout=patience(60))
    assert process.returncode != 0 and b"changed" in error
    assert files_below(place) == []


def test_source_is_cut_off(tool, large, place):
    process = tool.start("export", large, place / "out", "--safetensors",
                         "--dtype=f16")
    poll(lambda: hidden(place) or process.poll() is not None, 20, "a file")
    os.truncate(large, 1 << 20)
    _, error = process.communicate(timeout=patience(60))
    assert process.returncode in (BAD, FAILED) and error
    assert files_below(place) == []


# Memory, and what a terminal sees

def test_memory(tool, large, place):
    """Not a part of the half gigabyte, whatever that is; sanitizers have
    memory of their own."""
    used = tool.memory("export", large, place / "out", "--safetensors")
    assert used < (24 << 20 if SLOW == 1 else 256 << 20)
    assert (place / "out").stat().st_size > 8 << 26


def read_all(fd, into):
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:
            return
        if not data:
            return
        into.append(data)


def test_progress(tool, large, place):
    """On a terminal: a line that is written over, and goes away."""
    master, slave = pty.openpty()
    start = time.monotonic()
    process = tool.start("export", large, place / "out", "--safetensors",
                         "--dtype=f16", stderr=slave)
    os.close(slave)
    seen = []
    thread = threading.Thread(target=read_all, args=(master, seen))
    thread.start()
    poll(lambda: hidden(place) or process.poll() is not None, 20, "a file")
    # It is too fast: hold it, so that there is time to tell of.
    for _ in range(3):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.6)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.02)
    out, _ = process.communicate(timeout=patience(60))
    thread.join()
    elapsed = time.monotonic() - start
    os.close(master)
    assert process.returncode == 0
    text = b"".join(seen).decode()
    assert "iB of 256.0 MiB, " in text and "iB/s, 0:" in text
    assert "\n" not in text and "\x1b" not in text
    # Nothing is left of it, and little was written.
    assert text.endswith("\r") and text.split("\r")[-2].strip() == ""
    assert text.count("\r") < 10 * elapsed + 5
    assert out.decode() == "8 tensors, 256.0 MiB, 1 file\n"


def test_no_progress_elsewhere(tool, source, place):
    done = tool("export", source[0], place / "out", "--hf")
    assert done.stderr == ""
