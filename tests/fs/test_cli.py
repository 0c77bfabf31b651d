"""The command line: what it accepts, refuses and says, and how it ends."""

import os
import re
import shutil
import signal
import subprocess

import pytest

import util
from mounting import Mount, is_mounted, mount_table, patience, poll, \
    remove_mounts_below

STEP = "torch-2.6.0/dtensor4"


@pytest.fixture
def step(store):
    return store(STEP)


@pytest.fixture
def cli(binary, tmp_path):
    """Run ckptfs with arguments that make no mount, to its end."""
    def run(*args):
        done = subprocess.run([binary, *map(str, args)], capture_output=True,
                              text=True, timeout=patience(20), cwd=tmp_path,
                              stdin=subprocess.DEVNULL)
        assert remove_mounts_below(tmp_path) == [], "it has mounted"
        return done
    (tmp_path / "mnt").mkdir()
    return run


@pytest.fixture
def launch(binary, tmp_path):
    """A Mount whose command the test may change before it is started."""
    mounts = []

    def make(source, **kwargs):
        point = tmp_path / ("at%d" % len(mounts))
        point.mkdir()
        mounts.append(Mount(binary, source, point, tmp_path, **kwargs))
        return mounts[-1]

    yield make
    faults = [fault for mount in mounts for fault in mount.finish()]
    assert not faults, "\n".join(faults)


# What it says

@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(cli, flag):
    done = cli(flag)
    assert done.returncode == 0 and done.stderr == ""
    assert re.search("usage", done.stdout, re.I)
    for word in "-f", "-d", "-o", "log=", "--version":
        assert word in done.stdout


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(cli, flag):
    done = cli(flag)
    assert done.returncode == 0 and done.stderr == ""
    assert re.search(r"ckptfs.* \d+\.\d+", done.stdout)


@pytest.mark.parametrize("args", [
    [], ["{step}"], ["{step}", "mnt", "more"], ["{step}", "mnt", "-x"],
    ["{step}", "mnt", "--nonsense"], ["{step}", "mnt", "-o", "nonsense"],
    ["{step}", "mnt", "-f", "-o", "ro,nonsense=3"], ["{step}", "mnt", "-o"]],
    ids=lambda args: " ".join(args[2:]) or "%d arguments" % len(args))
def test_usage_errors(cli, step, args):
    done = cli(*(str(a).format(step=step) for a in args))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "--help" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize("front", [[], ["-f"]], ids=["background", "-f"])
@pytest.mark.parametrize("source, point, word", [
    ("absent", "mnt", "absent"), ("file", "mnt", "file"),
    ("{step}", "nowhere", "nowhere"), ("{step}", "file", "file"),
    ("", "mnt", ""), ("{step}", "", "")])
def test_failures_to_mount(cli, step, tmp_path, source, point, word, front):
    (tmp_path / "file").write_text("not a folder")
    done = cli(source.format(step=step), point, *front)
    # An empty word may also count as a mistake in the command.
    assert done.returncode in ((1,) if word else (1, 2))
    assert word in done.stderr and "ckptfs" in done.stderr
    assert done.stdout == ""


def test_log_file_that_cannot_be_opened(cli, step, tmp_path):
    done = cli(step, "mnt", "-o", "log=%s/no/such/folder" % tmp_path)
    assert done.returncode in (1, 2)
    assert "no/such/folder" in done.stderr


# The background

def test_background(ckpt, step):
    mount = ckpt(step, foreground=False)
    assert mount.stderr == ""
    assert (mount.path / "tensors" / "row").stat().st_size == 192
    assert os.getsid(mount.pid) != os.getsid(0)
    # It holds no folder that someone may want to unmount or remove.
    assert os.readlink("/proc/%d/cwd" % mount.pid) == "/"
    for fd in 0, 1, 2:
        assert os.readlink("/proc/%d/fd/%d" % (mount.pid, fd)) == "/dev/null"
    mount.unmount()


@pytest.mark.parametrize("foreground", [True, False],
                         ids=["-f", "background"])
def test_relative_paths(launch, step, tmp_path, foreground):
    shutil.copytree(step, tmp_path / "here" / "step")
    mount = launch("step", foreground=foreground)
    mount.cwd = tmp_path / "here"
    # No other test's: it is known by these words.
    mount.spelled = mount.command[2] = os.path.join(
        "../..", tmp_path.name, mount.path.name)
    mount.start()
    assert (mount.path / "tensors" / "row").stat().st_size == 192
    mount.unmount()


def test_log_option(ckpt, store, tmp_path):
    (store.root / "bad").mkdir()
    (store.root / "bad" / ".metadata").write_bytes(b"\x80\x04no pickle")
    (tmp_path / "mnt0.log").write_text("a line from yesterday\n")
    mount = ckpt(store.root, foreground=False,
                 expect_log=[r"ckptfs: error: .*bad/\.metadata: byte \d+: ."])
    assert os.listdir(mount.path / "bad") == [".metadata"]
    mount.wait_log(r"error: .*bad/\.metadata")
    assert mount.log().startswith("a line from yesterday\n")


def test_log_option_in_the_foreground(launch, store, tmp_path):
    """A relative FILE is where the user was, not where the daemon is."""
    (store.root / "bad").mkdir()
    (store.root / "bad" / ".metadata").write_bytes(b"\x80\x04no pickle")
    mount = launch(store.root, options="log=mine.log", foreground=False)
    mount.cwd = tmp_path
    mount.command[-1] = "log=mine.log"
    mount.start()
    os.listdir(mount.path / "bad")
    poll(lambda: "bad/.metadata" in (tmp_path / "mine.log").read_text(), 10,
         "the refusal in mine.log")


def test_debug_stays_in_front(launch, step):
    mount = launch(step)
    mount.command[mount.command.index("-f")] = "-d"
    mount.start()
    assert (mount.path / "tensors" / "row").stat().st_size == 192
    assert mount.proc.poll() is None
    assert mount.log()
    mount.unmount()


def test_without_standard_streams(launch, step):
    """As some schedulers start programs: descriptors 0 to 2 are closed."""
    mount = launch(step, foreground=False)
    mount.command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh",
                     *mount.command]
    mount.start()
    assert (mount.path / "tensors" / "row").stat().st_size == 192
    mount.unmount()


# Options of mount

def entry_of(mount):
    """(type, source, options, more options) of a mounted file system."""
    return mount_table()[str(mount.path.resolve())]


def test_type_and_name(ckpt, step):
    plain = entry_of(ckpt(step))
    assert plain[0] == "fuse.ckptfs"
    assert {"ro", "nosuid", "nodev"} <= set(plain[2].split(","))
    named = entry_of(ckpt(step, options="fsname=my-model"))
    assert named[:2] == ("fuse.ckptfs", "my-model")


def test_common_options(ckpt, step):
    mount = ckpt(step, options="ro,allow_other,default_permissions,"
                               "noatime,noexec,nosuid,nodev")
    options = entry_of(mount)
    words = set((options[2] + "," + options[3]).split(","))
    assert {"ro", "allow_other", "default_permissions", "noexec",
            "noatime"} <= words
    assert (mount.path / "tensors" / "row").stat().st_size == 192


def test_rw_is_accepted_but_not_meant(ckpt, step):
    """What mount(8) passes on by default."""
    mount = ckpt(step, options="rw,dev,suid")
    util.same_errno(util.errno_of(os.mkdir, mount.path / "x"), "EROFS")


def test_options_of_one_word_each(launch, step):
    mount = launch(step)
    mount.command += ["-o", "fsname=one", "-oallow_other"]
    mount.start()
    entry = entry_of(mount)
    assert entry[1] == "one" and "allow_other" in entry[3]


def test_auto_unmount(ckpt, step):
    mount = ckpt(step, options="auto_unmount")
    mount.expect_exit = -signal.SIGKILL
    assert (mount.path / "tensors" / "row").stat().st_size == 192
    os.kill(mount.pid, signal.SIGKILL)
    mount.wait()
    poll(lambda: not is_mounted(mount.path), 10, "the mount goes")


def test_odd_paths(launch, step, tmp_path):
    source = tmp_path / "a, b\\c=\u00fc" / "step"
    shutil.copytree(step, source)
    mount = launch(source)
    mount.start()
    assert (mount.path / "tensors" / "row").stat().st_size == 192
    assert entry_of(mount)[0] == "fuse.ckptfs"


def test_mount_over_the_source(binary, store, tmp_path):
    folder = store(STEP)
    mount = Mount(binary, folder, folder, tmp_path)
    try:
        mount.start()
        assert (folder / "tensors" / "row").stat().st_size == 192
        assert (folder / "__0_0.distcp").stat().st_size > 0
        mount.unmount()
        assert not os.path.lexists(folder / "tensors")
    finally:
        faults = mount.finish()
    assert not faults, "\n".join(faults)


def test_mount_point_in_the_source(binary, store, tmp_path):
    """`ckptfs . mnt`: no hang when the mount would hold itself."""
    store(STEP, "step")
    point = store.root / "mnt"
    point.mkdir()
    mount = Mount(binary, store.root, point, tmp_path)
    try:
        mount.start()
        assert {"step", "mnt"} >= set(os.listdir(point)) >= {"step"}
        assert (point / "step" / "tensors" / "row").stat().st_size == 192
        subprocess.run(["find", point, "-maxdepth", "3"], check=True,
                       timeout=patience(20), stdout=subprocess.DEVNULL)
        mount.unmount()
    finally:
        faults = mount.finish()
    assert not faults, "\n".join(faults)
