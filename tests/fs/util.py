"""What the tests know about checkpoints without asking ckptfs."""

import ast
import ctypes
import errno
import hashlib
import io
import json
import math
import os
import pickle

import numpy as np

from mounting import SLOW, patience  # noqa: F401

# torch dtype -> (bytes per element, user.ckptfs.dtype, descr of the .npy)
TYPES = {
    "float64": (8, "F64", "<f8"),
    "float32": (4, "F32", "<f4"),
    "float16": (2, "F16", "<f2"),
    "bfloat16": (2, "BF16", "<V2"),
    "int64": (8, "I64", "<i8"),
    "int32": (4, "I32", "<i4"),
    "int16": (2, "I16", "<i2"),
    "int8": (1, "I8", "|i1"),
    "uint8": (1, "U8", "|u1"),
    "uint16": (2, "U16", "<u2"),
    "uint32": (4, "U32", "<u4"),
    "uint64": (8, "U64", "<u8"),
    "bool": (1, "BOOL", "|b1"),
    "complex64": (8, "C64", "<c8"),
    "complex128": (16, "C128", "<c16"),
    "complex32": (4, "C32", "<V4"),
    "float8_e4m3fn": (1, "F8_E4M3", "|V1"),
    "float8_e5m2": (1, "F8_E5M2", "|V1"),
    "float8_e4m3fnuz": (1, "F8_E4M3FNUZ", "|V1"),
    "float8_e5m2fnuz": (1, "F8_E5M2FNUZ", "|V1"),
    "float8_e8m0fnu": (1, "F8_E8M0", "|V1"),
    "float4_e2m1fn_x2": (1, "F4", "|V1"),
    "qint8": (1, "QI8", "|V1"),
}

VIEWS = ("tensors", "npy", "f32", "safetensors", "hf", "objects",
         "tensors.json")


def encode(name, limit=180):
    """A fully qualified name as a file name."""
    if name in ("", ".", ".."):
        return {"": "%", ".": "%2E", "..": "%2E%2E"}[name]
    out = []
    for char in name:
        raw = char.encode("utf-8", "surrogatepass")
        bad = 0xD800 <= ord(char) < 0xE000
        if char in "%/[" or ord(char) < 32 or ord(char) == 127 or bad:
            out += ["%%%02X" % byte for byte in raw]
        else:
            out.append(char)
    if sum(len(unit.encode()) for unit in out) <= limit:
        return "".join(out)
    import xxhash
    text, size = "", 0
    for unit in out:
        size += len(unit.encode())
        if size > limit:
            break
        text += unit
    digest = xxhash.xxh3_128_hexdigest(name.encode("utf-8", "surrogatepass"))
    return text + "%~" + digest


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def tensor_bytes(tensor):
    """The row-major little-endian bytes of a tensor."""
    import torch
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if tensor.numel() == 0:
        return b""
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def as_array(data, shape, size):
    """Elements of `size` opaque bytes, so that NumPy can slice any dtype."""
    if math.prod(shape) == 0:
        return np.zeros(shape, "V%d" % size)
    return np.frombuffer(data, "V%d" % size).reshape(shape)


def array_bytes(array):
    return np.ascontiguousarray(array).tobytes()


def random_slice(rng, shape):
    """(the text between the brackets, the index for NumPy)."""
    texts, index = [], []
    for dim in shape[:rng.randint(1, len(shape))]:
        begin, end = sorted((rng.randint(0, dim), rng.randint(0, dim)))
        kind = rng.randrange(6)
        if kind == 0:
            begin, end, text = 0, dim, ":"
        elif kind == 1:
            end, text = dim, "%d:" % begin
        elif kind == 2:
            begin, text = 0, ":%d" % end
        elif kind == 3 and begin < dim:
            end, text = begin + 1, "%d" % begin
        else:
            text = "%d:%d" % (begin, end)
        texts.append(text)
        index.append(slice(begin, end))
    return ",".join(texts), tuple(index)


def split_npy(data):
    """(header as a dict, offset of the data) of a version 1.0 .npy file."""
    assert data[:8] == b"\x93NUMPY\x01\x00", data[:16]
    size = 10 + int.from_bytes(data[8:10], "little")
    assert size % 64 == 0, size
    text = data[10:size].decode("latin1")
    assert text.endswith("\n"), text
    return ast.literal_eval(text), size


def check_npy(data, dtype, shape, body):
    """The whole file: a header that says what it must, then the bytes."""
    header, offset = split_npy(data)
    assert header == {"descr": TYPES[dtype][2], "fortran_order": False,
                      "shape": tuple(shape)}
    assert data[offset:] == body


def xattrs(path, **kwargs):
    return {name: os.getxattr(path, name, **kwargs).decode()
            for name in os.listxattr(path, **kwargs)}


def errno_of(call, *args, **kwargs):
    """The errno that the call fails with, 0 if it does not fail."""
    try:
        result = call(*args, **kwargs)
    except OSError as error:
        return error.errno
    if isinstance(result, int) and call is os.open:
        os.close(result)
    return 0


def same_errno(number, *names):
    wanted = [getattr(errno, name) for name in names]
    assert number in wanted, "%s, not %s" % (
        errno.errorcode.get(number, number), " or ".join(names))


# PyTorch's own idea of a checkpoint

class PosixUnpickler(pickle.Unpickler):
    """`.metadata` of a newer Python names classes that this one lacks."""

    def find_class(self, module, name):
        if module == "pathlib._local":
            module = "pathlib"
        return super().find_class(module, name)


def read_metadata(path):
    with open(path, "rb") as file:
        return PosixUnpickler(file).load()


def items_of(folder, *names):
    """(fqn, chunk offsets or None) -> item, from every metadata file."""
    found = {}
    for name in names or (".metadata",):
        data = read_metadata(os.path.join(folder, name)).storage_data
        for key, info in data.items():
            offsets = None if key.offset is None else tuple(key.offset)
            found.setdefault((key.fqn, offsets), info)
    return found


def item_bytes(folder, info):
    with open(os.path.join(folder, info.relative_path), "rb") as file:
        file.seek(info.offset)
        return file.read(info.length)


def load_object(data):
    import torch
    try:
        return torch.load(io.BytesIO(data), weights_only=True)
    except pickle.UnpicklingError:
        return torch.load(io.BytesIO(data), weights_only=False)


def is_plain(value):
    if value is None or isinstance(value, (bool, int, float, str)):
        return True
    if isinstance(value, (list, tuple)):
        return all(is_plain(v) for v in value)
    if isinstance(value, dict):
        return all(is_plain(v) for v in value.values()) and all(
            k is None or isinstance(k, (str, int, float)) for k in value)
    return False


def as_json(value):
    return json.loads(json.dumps(value))


# A writer of real checkpoints that cuts tensors as a test wants

def save_chunks(folder, tensors, *, objects=None, files=1, version="1.0.0",
                stored=None):
    """Write a checkpoint with the metadata classes of the installed PyTorch.

    tensors: name -> (tensor, list of (offsets, sizes)); the chunks go round
    the `files` data files.  `stored` makes the tensor that is saved from a
    chunk, for other strides.
    """
    import torch
    from torch.distributed.checkpoint import metadata as md
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    os.makedirs(folder, exist_ok=True)
    streams = [io.BytesIO() for _ in range(files)]
    where, state, turn = {}, {}, 0

    def put(key, value):
        nonlocal turn
        stream = streams[turn % files]
        name = "__%d_0.distcp" % (turn % files)
        turn += 1
        item = io.BytesIO()
        torch.save(value, item)
        where[key] = _StorageInfo(name, stream.tell(), len(item.getvalue()))
        stream.write(item.getvalue())

    for name, value in (objects or {}).items():
        state[name] = md.BytesStorageMetadata()
        put(md.MetadataIndex(name), value)
    for name, (tensor, boxes) in tensors.items():
        chunks = []
        for offsets, sizes in boxes:
            part = tensor[tuple(slice(o, o + s)
                                for o, s in zip(offsets, sizes))]
            part = (stored or (lambda t: t.clone(
                memory_format=torch.contiguous_format)))(part)
            chunks.append(md.ChunkStorageMetadata(torch.Size(offsets),
                                                  torch.Size(sizes)))
            put(md.MetadataIndex(name, torch.Size(offsets)), part)
        state[name] = md.TensorStorageMetadata(
            md.TensorProperties(dtype=tensor.dtype), tensor.size(), chunks)
    for index, stream in enumerate(streams):
        path = os.path.join(folder, "__%d_0.distcp" % index)
        with open(path, "wb") as file:
            file.write(stream.getvalue())
    whole = md.Metadata(state, {n: (n,) for n in state}, where)
    if hasattr(whole, "version"):
        whole.version = version
    with open(os.path.join(folder, ".metadata.tmp"), "wb") as file:
        pickle.dump(whole, file)
    os.rename(os.path.join(folder, ".metadata.tmp"),
              os.path.join(folder, ".metadata"))
    return folder


def grid(shape, cuts):
    """Boxes of a regular cut of `shape` into cuts[i] parts along axis i."""
    boxes = [((), ())]
    for dim, parts in zip(shape, cuts):
        step = -(-dim // parts)
        boxes = [(o + (begin,), s + (min(step, dim - begin),))
                 for o, s in boxes for begin in range(0, dim, step)]
    return boxes


# System calls that Python does not wrap

LIBC = ctypes.CDLL(None, use_errno=True)


def getxattr_into(path, name, size):
    """getxattr with a buffer of `size` bytes: (result, errno)."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    ctypes.set_errno(0)
    result = LIBC.getxattr(os.fsencode(path), name.encode(), buffer,
                           ctypes.c_size_t(size))
    return result, ctypes.get_errno()


def tree(folder):
    """Relative path -> ("file", bytes) | ("link", target) | ("dir",)."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(base, name)
            key = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[key] = ("link", os.readlink(path))
            elif os.path.isdir(path):
                found[key] = ("dir",)
            else:
                with open(path, "rb") as file:
                    found[key] = ("file", file.read())
    return found


def without_links(entries):
    return {k: v for k, v in entries.items() if v[0] != "link"}
