"""Emits pickles, opcode by opcode, in any spelling that a writer may choose.

Python's own pickler picks the opcodes by itself; a reader must accept all of
them. So this one takes the choice as arguments, and it knows the few shapes
of object that a checkpoint is made of. It emits; it never loads anything.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass, field

BATCH = 1000
FRAME_TARGET = 64 * 1024


@dataclass(frozen=True)
class Global:
    """A class or function, by name."""
    module: str
    name: str


@dataclass(eq=False)
class Reduce:
    """func(*args), as REDUCE does it, then its items and its state."""
    func: object
    args: tuple
    state: object = None
    items: dict = field(default_factory=dict)


@dataclass(eq=False)
class Instance:
    """cls.__new__(cls, *args), then BUILD with the state unless None."""
    cls: object
    state: object = None
    args: tuple = ()


@dataclass(eq=False)
class Persid:
    """A persistent id: torch uses them for storages."""
    id: tuple


class Pairs(list):
    """A dict given as pairs, so that it may name a key twice."""


@dataclass(frozen=True)
class Opcodes:
    """Bytes put into the stream as they are."""
    data: bytes


@dataclass
class Style:
    """The spellings. None means what CPython's pickler does."""
    protocol: int = 2
    memo: str = None        # memoize, binput, long_binput, none
    ints: str = "short"     # short, binint, long1
    strings: str = "short"  # short, binunicode, binunicode8
    globals: str = None     # global, stack
    tuples: str = "short"   # short, mark
    batches: bool = True    # SETITEMS and APPENDS; False: one at a time
    frames: bool = None
    proto: bool = True      # the PROTO opcode

    def __post_init__(self):
        modern = self.protocol >= 4
        if self.memo is None:
            self.memo = "memoize" if modern else "binput"
        if self.globals is None:
            self.globals = "stack" if modern else "global"
        if self.frames is None:
            self.frames = modern
        if not modern and self.strings == "short":
            self.strings = "binunicode"


def dumps(obj, protocol=2, **style):
    """The pickle of a tree of plain data and of the classes above."""
    return Emitter(Style(protocol=protocol, **style)).pickle(obj)


class Emitter:
    def __init__(self, style):
        self.style = style
        self.ops = []
        self.memo = {}
        self.alive = []     # keeps the keys of the memo by id() valid

    def pickle(self, obj):
        self.save(obj)
        self.ops.append(b".")
        head = bytes([0x80, self.style.protocol]) if self.style.proto else b""
        if not self.style.frames:
            return head + b"".join(self.ops)
        return head + b"".join(framed(self.ops))

    def op(self, data):
        self.ops.append(data)

    # -- the memo

    def key(self, obj):
        if isinstance(obj, (str, Global)):
            return obj
        return id(obj)

    def put(self, obj):
        index = len(self.memo)
        kind = self.style.memo
        if kind == "none":
            return
        self.memo[self.key(obj)] = index
        self.alive.append(obj)
        if kind == "memoize":
            self.op(b"\x94")
        elif kind == "binput" and index < 256:
            self.op(b"q" + bytes([index]))
        else:
            self.op(b"r" + struct.pack("<I", index))

    def get(self, obj):
        index = self.memo.get(self.key(obj))
        if index is None:
            return False
        if index < 256 and self.style.memo != "long_binput":
            self.op(b"h" + bytes([index]))
        else:
            self.op(b"j" + struct.pack("<I", index))
        return True

    # -- objects

    def save(self, obj):
        if obj is None:
            return self.op(b"N")
        if isinstance(obj, bool):
            return self.op(b"\x88" if obj else b"\x89")
        if isinstance(obj, int):
            return self.op(self.integer(obj))
        if isinstance(obj, float):
            return self.op(b"G" + struct.pack(">d", obj))
        if isinstance(obj, Opcodes):
            return self.op(obj.data)
        if isinstance(obj, tuple) and not obj:
            return self.op(b")")
        if self.get(obj):
            return None
        return self.saver(obj)(obj)

    def saver(self, obj):
        for kind, save in ((str, self.save_str), (bytes, self.save_bytes),
                           (tuple, self.save_tuple), (Pairs, self.save_dict),
                           (list, self.save_list),
                           (OrderedDict, self.save_ordered),
                           (dict, self.save_dict), (set, self.save_set),
                           (frozenset, self.save_frozenset),
                           (Global, self.save_global),
                           (Reduce, self.save_reduce),
                           (Instance, self.save_instance),
                           (Persid, self.save_persid)):
            if isinstance(obj, kind):
                return save
        raise TypeError(f"cannot emit {type(obj)}")

    def integer(self, value):
        if self.style.ints == "short" and 0 <= value < 1 << 8:
            return b"K" + bytes([value])
        if self.style.ints == "short" and 0 <= value < 1 << 16:
            return b"M" + struct.pack("<H", value)
        if self.style.ints != "long1" and -1 << 31 <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        size = (value.bit_length() + 8) // 8 if value else 0
        return b"\x8a" + bytes([size]) + value.to_bytes(
            size, "little", signed=True)

    def save_str(self, obj):
        data = obj.encode("utf-8", "surrogatepass")
        kind = self.style.strings
        if kind == "short" and len(data) < 256:
            self.op(b"\x8c" + bytes([len(data)]) + data)
        elif kind == "binunicode8":
            self.op(b"\x8d" + struct.pack("<Q", len(data)) + data)
        else:
            self.op(b"X" + struct.pack("<I", len(data)) + data)
        self.put(obj)

    def save_bytes(self, obj):
        if self.style.protocol < 3:
            return self.save(Reduce(Global("_codecs", "encode"),
                                    (obj.decode("latin1"), "latin1")))
        if len(obj) < 256:
            self.op(b"C" + bytes([len(obj)]) + obj)
        else:
            self.op(b"B" + struct.pack("<I", len(obj)) + obj)
        return self.put(obj)

    def save_tuple(self, obj):
        short = self.style.tuples == "short" and len(obj) <= 3
        if not short:
            self.op(b"(")
        for part in obj:
            self.save(part)
        self.op(b")\x85\x86\x87"[len(obj):][:1] if short else b"t")
        self.put(obj)

    def save_list(self, obj):
        self.op(b"]")
        self.put(obj)
        if len(obj) == 1 or not self.style.batches:
            for part in obj:
                self.save(part)
                self.op(b"a")
            return
        for start in range(0, len(obj), BATCH):
            self.op(b"(")
            for part in obj[start:start + BATCH]:
                self.save(part)
            self.op(b"e")

    def save_dict(self, obj):
        self.op(b"}")
        self.put(obj)
        self.items(obj if isinstance(obj, Pairs) else list(obj.items()))

    def items(self, pairs):
        """As the C pickler: a multiple of 1000 ends in an empty batch."""
        if len(pairs) == 1 or not self.style.batches:
            for key, value in pairs:
                self.save(key)
                self.save(value)
                self.op(b"s")
            return
        for start in range(0, len(pairs) + 1 if pairs else 0, BATCH):
            self.op(b"(")
            for key, value in pairs[start:start + BATCH]:
                self.save(key)
                self.save(value)
            self.op(b"u")

    def save_ordered(self, obj):
        self.save(Global("collections", "OrderedDict"))
        self.op(b")R")
        self.put(obj)
        self.items(list(obj.items()))

    def save_set(self, obj):
        self.op(b"\x8f")
        self.put(obj)
        self.op(b"(")
        for part in obj:
            self.save(part)
        self.op(b"\x90")

    def save_frozenset(self, obj):
        self.op(b"(")
        for part in obj:
            self.save(part)
        self.op(b"\x91")
        self.put(obj)

    def save_global(self, obj):
        if self.style.globals == "stack":
            self.save(obj.module)
            self.save(obj.name)
            self.op(b"\x93")
        else:
            self.op(f"c{obj.module}\n{obj.name}\n".encode())
        self.put(obj)

    def save_reduce(self, obj):
        self.save(obj.func)
        self.save(obj.args)
        self.op(b"R")
        self.put(obj)
        self.items(list(obj.items.items()))
        self.build(obj.state)

    def save_instance(self, obj):
        self.save(obj.cls)
        self.save(obj.args)
        self.op(b"\x81")
        self.put(obj)
        self.build(obj.state)

    def build(self, state):
        if state is not None:
            self.save(state)
            self.op(b"b")

    def save_persid(self, obj):
        self.save(obj.id)
        self.op(b"Q")


def framed(ops):
    """Frames of about 64 KiB; an opcode larger than that stands outside."""
    frame = bytearray()
    for op in ops:
        if len(op) >= FRAME_TARGET:
            yield close_frame(frame)
            yield op
            frame = bytearray()
            continue
        frame += op
        if len(frame) >= FRAME_TARGET:
            yield close_frame(frame)
            frame = bytearray()
    yield close_frame(frame)


def close_frame(frame):
    if len(frame) < 4:
        return bytes(frame)
    return b"\x95" + struct.pack("<Q", len(frame)) + frame
