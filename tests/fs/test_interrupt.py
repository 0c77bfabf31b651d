"""Clients that get signals while the store does not answer."""

import contextlib
import ctypes
import mmap
import os
import resource
import signal
import subprocess
import traceback

import pytest
import torch

import util
from mounting import SLOW, poll
from slow import LOOKUP, OPEN, OPENDIR, READ, SlowFolder

SIZE = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
FATAL = (signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT)


# What a client does; each ends when the store answers.  Python itself goes on
# with some calls after EINTR, so these are the C library's.

def pread(fd, offset=0, size=4096):
    with mmap.mmap(-1, size) as buffer:
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        got = LIBC.pread(fd, ctypes.c_void_p(address), ctypes.c_size_t(size),
                         ctypes.c_long(offset))
        assert got == size, os.strerror(ctypes.get_errno())
        return ctypes.string_at(address, size)


def open_file(folder, name, flags=0):
    fd = LIBC.openat(folder, os.fsencode(name), os.O_RDONLY | flags)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


def read(place, turn):
    assert pread(open_file(place.views["held"], "w")) == place.data[:4096]


def read_past_cache(place, turn):
    """The kernel waits for such a read whatever comes."""
    fd = open_file(place.views["held"], "w", os.O_DIRECT)
    assert pread(fd) == place.data[:4096]


def read_holed(place, turn):
    """There is no page cache for a tensor with holes: the kernel asks for
    exactly these bytes, and tells of signals."""
    assert pread(open_file(place.views["holed"], "w")) == place.data[:4096]


def read_mapped(place, turn):
    fd = open_file(place.views["held"], "w")
    with mmap.mmap(fd, SIZE, prot=mmap.PROT_READ) as view:
        assert view[:4096] == place.data[:4096]


def look_up(place, turn):
    """While a name is looked up, others wait for that and for no signal."""
    util.same_errno(util.errno_of(os.stat, "absent%d" % turn,
                                  dir_fd=place.folder), "ENOENT")


def look_up_object(place, turn):
    assert os.stat("note.json", dir_fd=place.objects).st_size > 0


def open_stored(place, turn):
    open_file(place.folder, "__0_0.distcp")


def list_folder(place, turn):
    assert ".metadata" in os.listdir("/proc/self/fd/%d" % place.folder)


def list_objects(place, turn):
    assert os.listdir("/proc/self/fd/%d" % place.objects)


HOLDS = {
    read: (READ, "/held/__0_0.distcp"),
    read_past_cache: (READ, "/held/__0_0.distcp"),
    read_holed: (READ, "/holed/__0_0.distcp"),
    read_mapped: (READ, "/held/__0_0.distcp"),
    look_up: (LOOKUP, "/held/absent"),
    look_up_object: (READ, "/held/__0_0.distcp"),
    open_stored: (OPEN, "/held/__0_0.distcp"),
    list_folder: (OPENDIR, "/held"),
    list_objects: (READ, "/held/__0_0.distcp"),
}
KILLABLE = [work for work in HOLDS if work is not read_past_cache]


# The store, its mount, and clients

class Place:
    """The store's folders free, held and holed: a tensor "w" each."""

    def __init__(self, slow, upper, data):
        self.slow, self.mount, self.data = slow, upper, data
        self.fds = []
        self.folder = self.open("held")
        self.objects = self.open("held/objects/")
        self.views = {name: self.open(name + "/tensors/")
                      for name in ("free", "held", "holed")}

    def open(self, name):
        self.fds.append(os.open(self.mount.path / name, os.O_RDONLY))
        return self.fds[-1]

    def close(self):
        while self.fds:
            os.close(self.fds.pop())

    def hold(self, work):
        self.slow.hold(HOLDS[work])

    def check_others(self):
        """What is not held goes on."""
        assert os.listdir("/proc/self/fd/%d" % self.views["held"]) == ["w"]
        fd = open_file(self.views["free"], "w", os.O_DIRECT)
        assert os.pread(fd, SIZE, 0) == self.data
        os.close(fd)

    def check_all(self):
        """Everything can be read, by somebody new."""
        client = Client(self, read_all)
        poll(client.ended, 20, "everything is read")
        assert client.status == 0


def read_all(place, turn):
    for name in ("free", "held"):
        assert pread(open_file(place.views[name], "w"), 0, SIZE) == place.data
    for work in HOLDS:
        work(place, turn)


@pytest.fixture
def place(ckpt, tmp_path):
    store, point = tmp_path / "store", tmp_path / "slow"
    point.mkdir()
    tensor = torch.randint(0, 256, (SIZE,), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(5))
    whole, half = [((0,), (SIZE,))], [((0,), (SIZE // 2,))]
    util.save_chunks(store / "free", {"w": (tensor, whole)})
    util.save_chunks(store / "held", {"w": (tensor, whole)},
                     objects={"note": {"a": 1}})
    util.save_chunks(store / "holed", {"w": (tensor, half)})
    with contextlib.ExitStack() as stack:
        slow = SlowFolder(store, point)
        stack.callback(slow.close)
        mount = ckpt(point)
        stack.callback(end, mount)
        place = Place(slow, mount, util.tensor_bytes(tensor))
        stack.callback(place.close)
        stack.callback(slow.let_go)
        yield place


def end(mount):
    if mount.exit_code is None:
        mount.unmount()


class Client:
    """A process that does some work; nothing of this one's runs in it."""

    def __init__(self, place, work, turn=0, handler=False):
        self.status = None
        ready, self.child_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                self.run(place, work, turn, handler)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(self.child_end)
        assert os.read(ready, 1) == b"x"
        os.close(ready)

    def run(self, place, work, turn, handler):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        if handler:
            signal.signal(signal.SIGUSR1, lambda *_: None)
        os.write(self.child_end, b"x")
        work(place, turn)

    def is_waiting(self):
        with open("/proc/%d/stat" % self.pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "SD"

    def kill(self, number):
        os.kill(self.pid, number)

    def ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None


@contextlib.contextmanager
def stuck(place, work, turn=0, handler=False):
    """A client that waits for what is held."""
    client = Client(place, work, turn, handler)
    try:
        poll(client.is_waiting, 10, "the client waits")
        place.slow.wait_held()
        yield client
    finally:
        if not client.ended():
            place.slow.let_go()
            client.kill(signal.SIGKILL)
            poll(client.ended, 20, "a killed client ends")


def dies(client, number):
    client.kill(number)
    poll(client.ended, 1, "the client dies of %s" % number.name)
    assert client.status == -number


def deliver(place, client):
    """A signal that the client survives.  The daemon has heard of it: this
    request came behind."""
    client.kill(signal.SIGUSR1)
    os.fstatvfs(place.folder)


# What happens to them

@pytest.mark.parametrize("work", KILLABLE, ids=lambda f: f.__name__)
def test_killed(place, work):
    place.hold(work)
    for turn, number in enumerate(FATAL):
        # In the page cache the kernel waits on whoever leaves a core.
        if number == signal.SIGQUIT and work in (read, read_mapped):
            continue
        with stuck(place, work, turn) as client:
            dies(client, number)
            place.check_others()
    place.slow.let_go()
    place.check_all()


@pytest.mark.parametrize("work", KILLABLE, ids=lambda f: f.__name__)
def test_survives_a_signal(place, work):
    place.hold(work)
    with stuck(place, work, handler=True) as client:
        for _ in range(3):
            deliver(place, client)
        place.check_others()
        assert not client.ended()
        place.slow.let_go()
        poll(client.ended, 20, "the client ends")
        assert client.status == 0
    place.check_all()


@pytest.mark.parametrize("work", [read_holed, look_up, open_stored],
                         ids=lambda f: f.__name__)
def test_survives_a_signal_and_is_killed(place, work):
    """The kernel tells of the first signal only: the answer is waited for,
    and nobody else is."""
    for turn, number in enumerate(FATAL):
        place.slow.forget_pages("holed/__0_0.distcp")
        place.hold(work)
        with stuck(place, work, turn, handler=True) as client:
            deliver(place, client)
            assert not client.ended()
            client.kill(number)
            place.check_others()
            place.slow.let_go()
            poll(client.ended, 20, "the client ends")
            assert client.status == -number
        place.check_all()


def test_past_the_page_cache(place):
    place.hold(read_past_cache)
    with stuck(place, read_past_cache, handler=True) as client:
        deliver(place, client)
        place.check_others()
        place.slow.let_go()
        poll(client.ended, 20, "the client ends")
        assert client.status == 0


def test_many_are_killed(place):
    """More than there are threads: those that still queue are left out."""
    place.hold(read_holed)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(stuck(place, read_holed))
                   for _ in range(40)]
        for client in clients:
            client.kill(signal.SIGKILL)
        for client in clients:
            poll(client.ended, 1, "the client dies")
        place.slow.let_go()
    place.check_all()


def test_killed_while_the_answer_comes(place, rng):
    for turn in range(100 // SLOW):
        place.slow.forget_pages("holed/__0_0.distcp")
        place.hold(read_holed)
        with stuck(place, read_holed) as client:
            if rng.randrange(2):
                client.kill(signal.SIGKILL)
                place.slow.let_go()
            else:
                place.slow.let_go()
                client.kill(signal.SIGKILL)
            poll(client.ended, 1, "the client ends")
            assert client.status in (0, -signal.SIGKILL)
    place.check_all()


def test_unmount_with_a_read_that_nobody_waits_for(place):
    place.hold(read_holed)
    with stuck(place, read_holed) as client:
        dies(client, signal.SIGKILL)
    place.close()
    subprocess.run(["fusermount3", "-u", place.mount.path], check=True)
    assert place.mount.proc.poll() is None
    place.slow.let_go()
    assert place.mount.wait() == 0


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "waiting"])
def test_end_of_the_daemon_with_a_stuck_read(place, killed):
    place.hold(read_holed)
    with stuck(place, read_holed) as client:
        if killed:
            dies(client, signal.SIGTERM)
        os.kill(place.mount.pid, signal.SIGTERM)
        place.slow.let_go()
        assert place.mount.wait() == 0
        poll(client.ended, 20, "the client ends")
        assert killed or client.status == 0
