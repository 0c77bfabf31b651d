"""A folder on a medium that hangs when told to.

SlowFolder mounts a copy of a folder through FUSE, spoken by hand: a thread of
this process answers the kernel.  What hold() names is left without an answer
until let_go().  Names and attributes may stay in the kernel's caches for good,
so that nothing but what is held ever waits.

The thread needs Python's lock: only other processes may touch files here, or
mounts above, by mapping them.
"""

import errno
import os
import socket
import stat
import struct
import subprocess
import threading

from mounting import patience

LOOKUP, FORGET, GETATTR, READLINK, OPEN, READ = 1, 2, 3, 5, 14, 15
STATFS, RELEASE, FLUSH, INIT, OPENDIR, READDIR = 17, 18, 25, 26, 27, 28
RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 29, 36, 38, 42

HEADER = struct.Struct("<IIQQIIIHH")
FOREVER = 1 << 20
# FUSE_ASYNC_READ, FUSE_PARALLEL_DIROPS, FUSE_MAX_PAGES.
FLAGS = 1 | 1 << 18 | 1 << 22


class SlowFolder:
    def __init__(self, folder, point):
        self.path = point
        self.nodes = {1: str(folder)}
        self.numbers = {}
        self.changed = threading.Condition()
        # Guarded by it: (opcode, part of the path), and requests.
        self.holds = set()
        self.held = []
        self.device = mount(point)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    # What tests call

    def hold(self, *holds):
        with self.changed:
            self.holds.update(holds)

    def wait_held(self, count=1):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.held) >= count,
                                         patience(10))

    def let_go(self):
        with self.changed:
            self.holds.clear()
            held, self.held = self.held, []
        for request in held:
            self.answer(*request)

    def forget_pages(self, name):
        """Opening a file does that, as usual in FUSE."""
        os.close(os.open(self.path / name, os.O_RDONLY))

    def close(self):
        self.let_go()
        subprocess.run(["fusermount3", "-uz", str(self.path)], check=True)
        self.thread.join(patience(10))
        os.close(self.device)

    # The other side

    def serve(self):
        while True:
            try:
                data = os.read(self.device, (1 << 20) + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return
            _, opcode, unique, node = HEADER.unpack_from(data)[:4]
            body = data[HEADER.size:]
            if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            if not self.is_held(opcode, unique, node, body):
                self.answer(opcode, unique, node, body)

    def is_held(self, opcode, unique, node, body):
        path = self.nodes.get(node, "")
        if opcode == LOOKUP:
            path = os.path.join(path, os.fsdecode(body[:-1]))
        with self.changed:
            if not any(opcode == code and part in path
                       for code, part in self.holds):
                return False
            self.held.append((opcode, unique, node, body))
            self.changed.notify_all()
        return True

    def answer(self, opcode, unique, node, body):
        try:
            data, error = self.run(opcode, node, body), 0
        except OSError as failure:
            data, error = b"", failure.errno
        head = struct.pack("<IiQ", 16 + len(data), -error, unique)
        try:
            os.write(self.device, head + data)
        except OSError:
            pass  # Nobody waits for it any more.

    def run(self, opcode, node, body):
        path = self.nodes.get(node)
        if opcode == INIT:
            ahead = struct.unpack_from("<III", body)[2]
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, ahead, FLAGS, 64, 48,
                               1 << 20, 1, 256, 0, 0)
        if opcode == LOOKUP:
            return self.look_up(os.path.join(path, os.fsdecode(body[:-1])))
        if opcode == GETATTR:
            return struct.pack("<QII", FOREVER, 0, 0) + attributes(path, node)
        if opcode == READLINK:
            return os.fsencode(os.readlink(path))
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, 0, 0)
        if opcode == STATFS:
            return struct.pack("<QQQQQIII28x", 0, 0, 0, 0, 0, 4096, 255, 4096)
        if opcode in (RELEASE, RELEASEDIR, FLUSH, DESTROY):
            return b""
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            with open(path, "rb") as file:
                return os.pread(file.fileno(), size, offset)
        if opcode == READDIR:
            return entries(path, *struct.unpack_from("<QI", body, 8))
        raise OSError(errno.ENOSYS, "")

    def look_up(self, path):
        os.lstat(path)
        number = self.numbers.setdefault(path, len(self.numbers) + 2)
        self.nodes[number] = path
        return struct.pack("<QQQQII", number, 0, FOREVER, FOREVER, 0, 0) + \
            attributes(path, number)


def attributes(path, number):
    status = os.lstat(path)
    times = status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns
    return struct.pack(
        "<6Q10I", number, status.st_size, status.st_blocks,
        *(t // 10 ** 9 for t in times), *(t % 10 ** 9 for t in times),
        status.st_mode, status.st_nlink, status.st_uid, status.st_gid, 0,
        4096, 0)


def entries(path, position, size):
    data = b""
    for index, name in enumerate(sorted(os.listdir(path))):
        if index < position:
            continue
        raw = os.fsencode(name)
        kind = stat.S_IFMT(os.lstat(os.path.join(path, name)).st_mode) >> 12
        entry = struct.pack("<QQII", 0xffffffff, index + 1, len(raw), kind)
        entry += raw + bytes(-len(raw) % 8)
        if len(data) + len(entry) > size:
            break
        data += entry
    return data


def mount(point):
    """Returns the descriptor on which the kernel asks."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(["fusermount3", "-o", "ro,subtype=slow", "--",
                        str(point)], check=True, pass_fds=[theirs.fileno()],
                       env=dict(os.environ, _FUSE_COMMFD=str(theirs.fileno())))
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    return fds[0]
