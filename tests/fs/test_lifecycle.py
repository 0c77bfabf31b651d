"""How a mount ends, and the other ways to start one."""

import contextlib
import mmap
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

import util
from mounting import is_mounted, patience, poll, processes_with, send

STEP = "torch-2.6.0/dtensor4"
PAGE = 4096


@pytest.fixture
def step(store):
    return store(STEP)


# How it ends

@pytest.mark.parametrize("foreground", [True, False],
                         ids=["-f", "background"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT,
                                    signal.SIGHUP], ids=lambda n: n.name)
def test_signal(ckpt, step, number, foreground):
    mount = ckpt(step, foreground=foreground)
    (mount.path / "tensors" / "row").read_bytes()
    os.kill(mount.pid, number)
    assert mount.wait() == 0
    assert not is_mounted(mount.path)
    assert os.listdir(mount.path) == []


@contextlib.contextmanager
def working_in(folder):
    """A process whose working folder it is."""
    process = subprocess.Popen(["sleep", "600"], cwd=folder)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def handle_of(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT],
                         ids=lambda n: n.name)
def test_signal_with_open_files(files_to_hold, number):
    mount, path, data = files_to_hold
    with open(path, "rb", buffering=0) as file, \
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view, \
            working_in(path.parent), handle_of(path.parent) as handle:
        assert view[:PAGE] == data[:PAGE]
        os.kill(mount.pid, number)
        assert mount.wait() == 0
        assert not is_mounted(mount.path)
        # What was read is still there; what was not, ends in an error.
        assert view[:PAGE] == data[:PAGE]
        util.same_errno(util.errno_of(os.stat, "absent", dir_fd=handle),
                        "ENOTCONN")


@pytest.fixture
def files_to_hold(ckpt, sample):
    mount = ckpt(sample.root)
    return mount, mount.path / "step-1" / "tensors" / "rows", \
        sample.oracle["rows"]


def test_unmount_while_files_are_open(files_to_hold):
    mount, path, data = files_to_hold
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 0) == data[:10]
        done = subprocess.run(["fusermount3", "-u", mount.path],
                              capture_output=True, text=True)
        assert done.returncode != 0 and "busy" in done.stderr
        assert os.pread(file.fileno(), 10, 4 << 20) == \
            data[4 << 20:(4 << 20) + 10]
    mount.unmount()


def test_lazy_unmount_while_files_are_open(files_to_hold):
    mount, path, data = files_to_hold
    with open(path, "rb", buffering=0) as file:
        subprocess.run(["fusermount3", "-uz", mount.path], check=True)
        assert not is_mounted(mount.path)
        assert os.listdir(mount.path) == []
        # The file lives on for those who have it.
        assert file.readall() == data
        assert mount.proc.poll() is None
    assert mount.wait() == 0


def test_signal_while_reading(files_to_hold):
    mount, path, data = files_to_hold
    command = ["sh", "-c", "while cat '%s' > /dev/null; do :; done" % path]
    readers = [subprocess.Popen(command, stderr=subprocess.DEVNULL)
               for _ in range(3)]
    try:
        # Each of them is at work when its output has begun to move.
        for reader in readers:
            poll(lambda: has_read(reader.pid), 10, "cat reads")
        os.kill(mount.pid, signal.SIGTERM)
        assert mount.wait() == 0
        for reader in readers:
            reader.wait(patience(20))
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def has_read(pid):
    """Children that ended and were waited for count for their parent."""
    try:
        text = pathlib.Path("/proc/%d/io" % pid).read_text()
    except OSError:
        return False
    return int(re.search(r"rchar: (\d+)", text)[1]) > 1 << 20


def test_second_signal(ckpt, step):
    mount = ckpt(step)
    os.kill(mount.pid, signal.SIGTERM)
    send(mount.pid, signal.SIGINT)
    send(mount.pid, signal.SIGTERM)
    assert mount.wait() == 0
    assert not is_mounted(mount.path)


def test_signal_right_after_the_start(ckpt, step):
    for _ in range(5):
        mount = ckpt(step)
        os.kill(mount.pid, signal.SIGTERM)
        assert mount.wait() == 0


def test_many_mounts_in_a_row(ckpt, step):
    for foreground in (True, False) * 3:
        ckpt(step, foreground=foreground).unmount()


# Other ways to start it

def need_root():
    if os.geteuid() != 0:
        pytest.skip("only root can mount in a name space of its own")


def test_mount_program(binary, step, tmp_path):
    """mount -t fuse.ckptfs, with the program where a user installs it.

    mount(8) looks for it in the system's folders only, so one of them is
    replaced, in a name space that ends with the shell.
    """
    need_root()
    prefix = os.environ.get("CKPTFS_INSTALL_PREFIX")
    programs = pathlib.Path(prefix) / "bin" if prefix else tmp_path / "bin"
    if not prefix:
        programs.mkdir()
        shutil.copy2(binary, programs / "ckptfs")
    point = tmp_path / "mnt"
    point.mkdir()
    (tmp_path / "fstab").write_text(
        "%s %s fuse.ckptfs noauto,ro,allow_other 0 0\n" % (step, point))
    script = """set -e
        mount --bind "$1" /usr/local/bin
        for how in "-t fuse.ckptfs $2 $3" "-T $4 $3" \\
            "-t fuse.ckptfs -o ro,fsname=x $2 $3"
        do
            mount $how
            grep " $3 fuse.ckptfs ro," /proc/mounts
            sha256sum < "$3/tensors/row"
            umount "$3"
        done
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(programs),
         str(step), str(point), str(tmp_path / "fstab")],
        capture_output=True, text=True, timeout=patience(40))
    assert done.returncode == 0, done.stderr
    digest = "77135df9eb160bde21ae2ace0f16da1ad544c3be39e09d8e080b4e593b7e0bd4"
    assert done.stdout.count(digest) == 3
    poll(lambda: not processes_with(point), 15, "the daemons end")


def test_an_ordinary_user(binary, step):
    """Without root's rights: fusermount3 makes the mount."""
    need_root()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ckptfs-user-"))
    folder.chmod(0o755)
    point = folder / "mnt"
    try:
        shutil.copytree(step, folder / "step")
        shutil.copy2(binary, folder / "ckptfs")
        point.mkdir()
        os.chown(point, 65534, 65534)
        check_as_user(folder, point)
    finally:
        if is_mounted(point):
            subprocess.run(["fusermount3", "-uz", str(point)])
        poll(lambda: not processes_with(point), 15, "the daemon ends")
        shutil.rmtree(folder)


def check_as_user(folder, point):
    def run(script):
        return subprocess.run(["sh", "-ec", script], cwd=folder, user=65534,
                              group=65534, extra_groups=[], text=True,
                              capture_output=True, timeout=patience(40))

    if run("fusermount3 --version && test -u $(command -v fusermount3)") \
            .returncode:
        pytest.skip("fusermount3 is not set-user-id here")
    if run("test -r /dev/fuse && test -w /dev/fuse").returncode:
        pytest.skip("/dev/fuse is for root only here")
    done = run("./ckptfs step %s && sha256sum < mnt/tensors/row;"
               " fusermount3 -u mnt" % point)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("77135df9eb160bde")
