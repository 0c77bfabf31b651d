"""Items: one tensor, or one object, as torch.save stores it.

A tensor is given as a NumPy array of its *carrier* type: the type itself, or
unsigned integers of the same width for what NumPy has not (bfloat16, fp8).
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from . import pickles
from .archive import Blob, archive, records
from .pickles import Global, Persid, Reduce


@dataclass(frozen=True)
class Dtype:
    torch: str          # the name in torch
    name: str           # the name in ckptfs' attributes
    carrier: str        # NumPy type of the tests' arrays
    npy: str            # descr in the .npy header
    storage: str = ""   # typed storage; "" means _rebuild_tensor_v3
    part: int = 0       # bytes of the part that byteswap and sign work on

    @property
    def size(self):
        return np.dtype(self.carrier).itemsize

    @property
    def complex(self):
        return bool(self.part)

    @property
    def component(self):
        return self.part or self.size

    @property
    def quantized(self):
        return self.torch.startswith(("q", "quint"))


DTYPES = {d.torch: d for d in (
    Dtype("float64", "F64", "<f8", "<f8", "DoubleStorage"),
    Dtype("float32", "F32", "<f4", "<f4", "FloatStorage"),
    Dtype("float16", "F16", "<f2", "<f2", "HalfStorage"),
    Dtype("bfloat16", "BF16", "<u2", "<V2", "BFloat16Storage"),
    Dtype("int64", "I64", "<i8", "<i8", "LongStorage"),
    Dtype("int32", "I32", "<i4", "<i4", "IntStorage"),
    Dtype("int16", "I16", "<i2", "<i2", "ShortStorage"),
    Dtype("int8", "I8", "|i1", "|i1", "CharStorage"),
    Dtype("uint8", "U8", "|u1", "|u1", "ByteStorage"),
    Dtype("bool", "BOOL", "|b1", "|b1", "BoolStorage"),
    Dtype("complex64", "C64", "<c8", "<c8", "ComplexFloatStorage", 4),
    Dtype("complex128", "C128", "<c16", "<c16", "ComplexDoubleStorage", 8),
    Dtype("uint16", "U16", "<u2", "<u2"),
    Dtype("uint32", "U32", "<u4", "<u4"),
    Dtype("uint64", "U64", "<u8", "<u8"),
    Dtype("float8_e4m3fn", "F8_E4M3", "|u1", "|V1"),
    Dtype("float8_e5m2", "F8_E5M2", "|u1", "|V1"),
    Dtype("float8_e4m3fnuz", "F8_E4M3FNUZ", "|u1", "|V1"),
    Dtype("float8_e5m2fnuz", "F8_E5M2FNUZ", "|u1", "|V1"),
    Dtype("float8_e8m0fnu", "F8_E8M0", "|u1", "|V1"),
    Dtype("float4_e2m1fn_x2", "F4", "|u1", "|V1"),
    Dtype("complex32", "C32", "<u4", "<V4", part=2),
    Dtype("bcomplex32", "BC32", "<u4", "<V4", part=2),
    Dtype("bits8", "BITS8", "|u1", "|V1"),
    Dtype("bits16", "BITS16", "<u2", "<V2"),
    Dtype("bits1x8", "BITS1X8", "|u1", "|V1"),
    Dtype("bits2x4", "BITS2X4", "|u1", "|V1"),
    Dtype("bits4x2", "BITS4X2", "|u1", "|V1"),
    Dtype("qint8", "QI8", "|i1", "|V1", "QInt8Storage"),
    Dtype("quint8", "QU8", "|u1", "|V1", "QUInt8Storage"),
    Dtype("qint32", "QI32", "<i4", "<V4", "QInt32Storage"),
)}


def random_array(dtype, shape, rng):
    """Random bits of that type; bool stays 0 and 1."""
    if dtype.torch == "bool":
        return rng.integers(0, 2, shape).astype("?")
    count = int(np.prod(shape, dtype=object)) * dtype.size
    raw = rng.integers(0, 256, count, dtype=np.uint8)
    return raw.view(dtype.carrier).reshape(shape)


def flip_signs(array, dtype, every):
    """Negate each part, or (every=2) only each second one: conjugation."""
    if not dtype.torch.startswith(("float", "bfloat", "complex", "bcomplex")):
        return np.negative(array)
    width = dtype.component
    parts = np.ascontiguousarray(array).reshape(-1).view(f"<u{width}").copy()
    parts[every - 1::every] ^= np.array(1 << (8 * width - 1), f"<u{width}")
    return parts.view(dtype.carrier).reshape(np.shape(array))


@dataclass
class Layout:
    """How a chunk lies in its storage. strides None: dense, in `order`."""
    order: tuple = None         # axes from the slowest to the fastest
    strides: tuple = None       # in elements
    offset: int = 0             # storage_offset
    tail: int = 0               # elements of the storage after the last one

    def of(self, shape):
        if self.strides is not None:
            return tuple(self.strides)
        strides, step = [0] * len(shape), 1
        for axis in reversed(self.order or range(len(shape))):
            strides[axis] = step
            step *= max(1, shape[axis])
        return tuple(strides)

    def storage(self, array, fill=0xA5):
        """(storage array, strides); what no element covers is `fill`."""
        strides = self.of(array.shape)
        last = sum((n - 1) * s for n, s in zip(array.shape, strides))
        used = last + 1 if array.size else 0
        count = self.offset + used + self.tail
        out = np.full(count * array.itemsize, fill, np.uint8)
        out = out.view(array.dtype)
        np.lib.stride_tricks.as_strided(
            out[self.offset:], array.shape,
            [s * array.itemsize for s in strides])[...] = array
        return out, strides


@dataclass
class Item:
    """What the archive of one tensor chunk looks like."""
    era: str = "2.14"
    rebuild: str = None         # v2, v3, qtensor; None: as torch does
    wrap: tuple = ()            # of "parameter", "from_type", or a callable
    layout: Layout = field(default_factory=Layout)
    conj: bool = False
    neg: bool = False
    byteorder: str = "little"   # None: no such record
    device: str = "cpu"
    key: str = "0"
    align: int = 64
    crc: bool = True
    prefix: str = "archive"
    storage_global: Global = None
    requires_grad: bool = False
    size: tuple = None          # lies in data.pkl: size, dtype, numel
    dtype: str = None
    numel: int = None
    style: dict = field(default_factory=dict)
    payload: object = None      # Blob or Zeros instead of the array's bytes

    def build(self, dtype, array):
        """The archive (a Blob) of a logical array."""
        array = np.asarray(array)
        strides = self.layout.of(array.shape)
        data = self.data(dtype, array) if self.payload is None else \
            Blob(self.payload)
        pickle = self.pickle(dtype, array.shape, strides, data.size)
        return self.pack(pickle, {self.key: data})

    def data(self, dtype, array):
        """The bytes of the storage."""
        if self.conj:
            array = flip_signs(array, dtype, 2)
        if self.neg:
            array = flip_signs(array, dtype, 1)
        data, _ = self.layout.storage(array)
        if self.byteorder == "big":
            data = data.view(f"<u{dtype.component}").byteswap()
        return Blob(data.tobytes())

    def pack(self, pickle, storages):
        return archive(
            records(pickle, storages, self.era, self.byteorder, self.align),
            prefix=self.prefix, align=self.align, crc=self.crc)

    def pickle(self, dtype, shape, strides, nbytes):
        shape = shape if self.size is None else self.size
        if self.dtype is not None:
            dtype = DTYPES[self.dtype]
        node = self.rebuilt(dtype, tuple(shape), tuple(strides), nbytes)
        for wrap in self.wrap:
            node = wrapped(node, wrap)
        return pickles.dumps(node, **{"protocol": 2, **self.style})

    def rebuilt(self, dtype, shape, strides, nbytes):
        kind = self.rebuild or ("qtensor" if dtype.quantized else
                                "v2" if dtype.storage else "v3")
        untyped = Global("torch.storage", "UntypedStorage")
        typed = Global("torch", dtype.storage)
        count = nbytes if kind == "v3" else nbytes // dtype.size
        storage = Persid((
            "storage",
            self.storage_global or (untyped if kind == "v3" else typed),
            self.key, self.device,
            count if self.numel is None else self.numel))
        args = [storage, self.layout.offset, shape, strides]
        if kind == "qtensor":
            args.append((Global("torch", "per_tensor_affine"), 0.1, 0))
        args += [self.requires_grad, OrderedDict()]
        if kind == "v3":
            args.append(Global("torch", dtype.torch))
        bits = {name: True for name in ("conj", "neg") if getattr(self, name)}
        if bits:
            args.append(bits)
        name = "_rebuild_qtensor" if kind == "qtensor" \
            else f"_rebuild_tensor_{kind}"
        return Reduce(Global("torch._utils", name), tuple(args))


def wrapped(node, wrap):
    """Put the call of a rebuild function into that of another."""
    if wrap == "parameter":
        return Reduce(Global("torch._utils", "_rebuild_parameter"),
                      (node, True, OrderedDict()))
    if wrap == "from_type":
        return Reduce(Global("torch._tensor", "_rebuild_from_type_v2"),
                      (node.func, Global("torch.nn.parameter", "Buffer"),
                       node.args, None))
    return wrap(node)


def object_item(obj, era="2.14", storages=None, protocol=2, **style):
    """The archive of anything that is not a tensor."""
    pickle = obj if isinstance(obj, bytes) else \
        pickles.dumps(obj, protocol, **style)
    return archive(records(pickle, storages or {}, era))
