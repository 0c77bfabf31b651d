"""Real mounts for the tests of the file system.

A test asks for the fixture `ckpt` and calls it with a source folder; it gets
a daemon of its own on a mount point of its own.  Whatever the test does, the
mount and the process are gone afterwards, and a line at error level in the
daemon's log that the test did not announce fails it.

The binary under test comes from the environment variable CKPTFS_BIN;
CKPTFS_SANITIZER=address|thread says that it is slow.
"""

import faulthandler
import os
import pathlib
import random
import shutil
import signal
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

pytest.register_assert_rewrite("job", "union", "soak")

from job import Job  # noqa: E402
from mounting import LIVE, SLOW, Mount, patience, \
    remove_mounts_below  # noqa: E402

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"

# One phase (set-up, call or tear-down) of one test may take this long; a set-up
# may make what a whole module needs.
DEFAULT_TIMEOUT = 60
SETUP_TIMEOUT = 240


def pytest_configure(config):
    # What is ignored here, as in the background of a shell, stays ignored in
    # every program that a test starts.
    for number in signal.SIGINT, signal.SIGHUP, signal.SIGTERM:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    config.addinivalue_line(
        "markers", "timeout(seconds): how long one phase of the test may take")
    config.addinivalue_line(
        "markers", "heavy: takes long; not run under sanitizers")
    config.addinivalue_line(
        "markers", "concurrent: many readers at once; also run under TSan")
    config.addinivalue_line(
        "markers", "xdist_group(name): run in the same process as others")


def pytest_report_header(config):
    return "ckptfs: %s%s" % (
        os.environ.get("CKPTFS_BIN", "CKPTFS_BIN is not set"),
        ", sanitizer " + os.environ["CKPTFS_SANITIZER"] if SLOW > 1 else "")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests that share what is made once for a module stay in one process,
    where pytest-xdist runs them in several."""
    for item in items:
        shared = [name for name, made in item._fixtureinfo.name2fixturedefs
                  .items() if made[-1].scope == "module"]
        if shared:
            item.add_marker(pytest.mark.xdist_group("%s.%s" % (
                item.module.__name__, "_".join(sorted(shared)))))


# Cells of the table of test_faults.py, of all processes that run tests.
CELLS = {}


def pytest_sessionfinish(session):
    module = sys.modules.get("test_faults")
    cells = list(module.CELLS.items()) if module else []
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cells"] = cells
    else:
        CELLS.update(cells)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    CELLS.update((tuple(key), text) for key, text in
                 getattr(node, "workeroutput", {}).get("cells", ()))


def pytest_terminal_summary(terminalreporter):
    import test_faults
    for line in test_faults.table(CELLS) if CELLS else ():
        terminalreporter.write_line(line)


class Watchdog:
    """Ends a phase that takes too long.

    A system call on a mount whose daemon hangs does not return for a signal,
    so the daemons die first: that aborts their connections, every call on
    them returns, and Python gets to run the handler.  If even that does not
    help, the whole run ends with the stack of each thread.
    """

    def __init__(self, seconds):
        self.seconds = seconds
        self.active = True
        self.fired = False
        self.timer = threading.Timer(seconds, self.fire)
        self.timer.daemon = True

    def fire(self):
        self.fired = True
        faulthandler.dump_traceback(file=sys.__stderr__)
        for mount in list(LIVE):
            mount.abandon()
        if self.active:
            signal.pthread_kill(threading.main_thread().ident,
                                signal.SIGALRM)

    def alarm(self, signum, frame):
        if self.active:
            self.active = False
            raise TimeoutError("no end after %d s" % self.seconds)

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, self.alarm)
        self.timer.start()
        faulthandler.dump_traceback_later(self.seconds + 60, exit=True,
                                          file=sys.__stderr__)
        return self

    def __exit__(self, kind, *unused):
        self.active = False
        self.timer.cancel()
        self.timer.join()
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, self.before)
        if self.fired and kind is not TimeoutError:
            # The call on the mount failed, since its daemon was stopped.
            raise TimeoutError("no end after %d s" % self.seconds)


def limited(item, least=0):
    mark = item.get_closest_marker("timeout")
    return Watchdog(patience(max(
        least, mark.args[0] if mark else DEFAULT_TIMEOUT)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    with limited(item, SETUP_TIMEOUT):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    with limited(item):
        return (yield)


@pytest.fixture(scope="session")
def binary():
    path = os.environ.get("CKPTFS_BIN")
    if not path:
        pytest.fail("set CKPTFS_BIN to the ckptfs binary", pytrace=False)
    path = os.path.abspath(path)
    if not os.access(path, os.X_OK):
        pytest.fail("CKPTFS_BIN: %s is not a program" % path, pytrace=False)
    return path


@pytest.fixture(scope="session")
def fixtures_dir():
    return DATA / "fixtures"


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path):
    """After every test, also one that mounts without `ckpt`."""
    yield
    left = remove_mounts_below(tmp_path)
    if left:
        pytest.fail("mounts that stayed: %s" % left, pytrace=False)


@pytest.fixture
def ckpt(binary, tmp_path):
    """ckpt(source, *, options="", expect_log=(), foreground=True) -> Mount"""
    mounts = []

    def start(source, *, options="", expect_log=(), foreground=True, args=()):
        point = tmp_path / ("mnt%d" % len(mounts))
        point.mkdir()
        mount = Mount(binary, source, point, tmp_path, options=options,
                      expect_log=expect_log, foreground=foreground, args=args)
        mounts.append(mount)
        mount.start()
        return mount

    yield start

    faults = []
    for mount in reversed(mounts):
        faults += mount.finish()
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.fixture
def job(binary, tmp_path):
    """job(store, ranks, *, start=True, ...) -> Job; see there for the rest.

    `store` is a pattern with %r; the mounts are mnt0, mnt1, ... of a folder.
    """
    jobs = []

    def make(store, ranks, *, start=True, mount=None, seconds=30, **more):
        point = mount or tmp_path / ("mounts%d" % len(jobs)) / "mnt%r"
        made = Job(binary, store, point, tmp_path, ranks, **more)
        jobs.append(made)
        return made.start(seconds) if start else made

    yield make

    faults = []
    for made in reversed(jobs):
        faults += made.finish()
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.fixture(scope="module")
def hosts():
    """Three hosts on one network; see hosts.py."""
    import hosts as module
    reason = module.missing()
    if reason:
        pytest.skip(reason)
    with module.Hosts(3) as made:
        yield made


@pytest.fixture
def store(tmp_path, fixtures_dir):
    """A writable folder and a function that copies fixtures into it."""
    root = tmp_path / "store"
    root.mkdir()

    def put(fixture, name=None):
        target = root / (name or os.path.basename(fixture))
        shutil.copytree(fixtures_dir / fixture, target)
        # A writer finishes with the marker; a checkout has any order.
        for marker in target.glob("*.metadata"):
            os.utime(marker)
        return target

    put.root = root
    return put


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """The store of sample.py: .root, .tensors, and .oracle, their bytes."""
    from types import SimpleNamespace

    import sample as module
    import util
    root = tmp_path_factory.mktemp("sample") / "store"
    tensors = module.build(root)
    oracle = {n: util.tensor_bytes(t) for n, t in tensors.items()}
    return SimpleNamespace(root=root, tensors=tensors, oracle=oracle)


@pytest.fixture
def files(ckpt, sample):
    from sample import Files
    return Files(ckpt(sample.root), sample)


@pytest.fixture
def rng():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    return random.Random(seed)
