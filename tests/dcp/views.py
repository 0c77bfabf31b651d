"""Reads a mounted checkpoint back and compares it with arrays."""

import ast
import errno
import json
import os
import re
import time

import numpy as np

from .items import DTYPES

NAME_LIMIT = 180
ESCAPED = set(b"%/[") | set(range(0x20)) | {0x7F}


def encode(name):
    """The file name of a tensor; name is str (surrogates allowed) or bytes."""
    raw = name if isinstance(name, bytes) else \
        name.encode("utf-8", "surrogatepass")
    if raw == b"":
        return "%"
    if raw in (b".", b".."):
        return "%2E" * len(raw)
    units = []
    for char in raw.decode("utf-8", "surrogateescape"):
        data = char.encode("utf-8", "surrogateescape")
        plain = len(data) > 1 or (data[0] < 0x80 and data[0] not in ESCAPED)
        units += [char] if plain else [f"%{byte:02X}" for byte in data]
    out = "".join(units)
    if len(out.encode()) <= NAME_LIMIT:
        return out
    import xxhash
    return cut(units) + "%~" + xxhash.xxh3_128_hexdigest(raw)


def cut(units):
    out, size = "", 0
    for unit in units:
        size += len(unit.encode())
        if size > NAME_LIMIT:
            break
        out += unit
    return out


def read(path):
    with open(path, "rb") as file:
        return file.read()


def read_errno(path):
    """The errno of opening and reading a file whole; 0 if it can be read."""
    try:
        read(path)
    except OSError as error:
        return error.errno
    return 0


def xattr(path, name):
    return os.getxattr(path, "user.ckptfs." + name).decode()


def npy_header(data):
    """(header, payload) of a NumPy 1.0 file, by its published layout."""
    assert data[:8] == b"\x93NUMPY\x01\x00", data[:16]
    length = int.from_bytes(data[8:10], "little")
    assert (10 + length) % 64 == 0 and data[9 + length:10 + length] == b"\n"
    return ast.literal_eval(data[10:10 + length].decode()), data[10 + length:]


def check_npy(path, dtype, array):
    header, payload = npy_header(read(path))
    assert header == {"descr": dtype.npy, "fortran_order": False,
                      "shape": tuple(array.shape)}, path
    assert payload == array.tobytes(), path


def check_tensor(root, name, torch_dtype, array, rng=None, slices=3):
    """Everything that root/tensors and root/npy say about one tensor."""
    dtype = DTYPES[torch_dtype]
    raw, npy = root / "tensors", root / "npy"
    file = encode(name)
    assert read(raw / file) == array.tobytes(), (root, name)
    assert os.stat(raw / file).st_size == array.nbytes
    check_npy(npy / (file + ".npy"), dtype, array)
    for path in (raw / file, npy / (file + ".npy")):
        assert json.loads(xattr(path, "shape")) == list(array.shape), path
        assert xattr(path, "dtype") == dtype.name, path
        assert xattr(path, "torch_dtype") == torch_dtype, path
    for _ in range(slices if rng is not None and array.ndim else 0):
        text, part = random_slice(array.shape, rng)
        want = np.ascontiguousarray(array[part])
        assert read(raw / (file + text)) == want.tobytes(), (name, text)
        check_npy(npy / (file + text + ".npy"), dtype, want)
        assert json.loads(xattr(raw / (file + text), "shape")) == \
            list(want.shape)


def random_slice(shape, rng):
    """("[a:b,:,7]", the same as a tuple of slices)"""
    texts, part = [], []
    for length in shape[:rng.integers(1, len(shape) + 1)]:
        begin, end = sorted(int(i) for i in rng.integers(0, length + 1, 2))
        spellings = [f"{begin}:{end}"]
        if begin == 0:
            spellings.append(f":{end}")
        if end == length:
            spellings.append(f"{begin}:")
        if begin == 0 and end == length:
            spellings.append(":")
        if end == begin + 1:
            spellings.append(f"{begin}")
        texts.append(spellings[rng.integers(len(spellings))])
        part.append(slice(begin, end))
    return "[" + ",".join(texts) + "]", tuple(part)


def index(root):
    """tensors.json: name -> object."""
    return {line["name"]: line
            for line in json.loads(read(root / "tensors.json"))}


def check_refused(root, stored=None):
    """A refused checkpoint shows its files and no views."""
    names = set(os.listdir(root))
    assert not names & {"tensors", "npy", "objects", "tensors.json"}, root
    for view in ("tensors", "npy", "objects", "tensors.json"):
        assert not os.path.lexists(root / view), (root, view)
    if stored is not None:
        for name in os.listdir(stored):
            assert name in names, (root, name)


def errors(log, pattern=""):
    """The lines at error level in a log that match."""
    return [line for line in log.splitlines()
            if "ckptfs: error:" in line and re.search(pattern, line)]


def wait_errors(mount, pattern, count):
    """The matching lines, once there are that many. A line about a read may
    come a moment after the reader has its error."""
    deadline = time.monotonic() + 10
    while len(errors(mount.log(), pattern)) < count and \
            time.monotonic() < deadline:
        time.sleep(0.01)
    return errors(mount.log(), pattern)


EIO, UNREADABLE = errno.EIO, (errno.EIO, errno.EOPNOTSUPP)
