"""Archives that lie: items of a float32 tensor of shape (4, 3).

Each must give EIO (or EOPNOTSUPP), or, where the lie is about something that
nobody needs, the right bytes; never other bytes, never those of a neighbour.
"""

import struct

from . import pickles
from .archive import Blob, Record, archive, records
from .items import DTYPES, Item, Layout
from .pickles import Global, Opcodes, Persid, Reduce

SHAPE = (4, 3)
DTYPE = DTYPES["float32"]
FAR = (0x7FFFFFFF, 0xFFFFFFFE)
FAR64 = (1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 64,
         (1 << 64) - 1)


def patched(blob, place, offset, layout, *values):
    """The bytes of blob with values packed at offset from a mark."""
    data = bytearray(bytes(blob))
    struct.pack_into(layout, data, blob.marks[place] + offset, *values)
    return Blob(bytes(data))


def structures(array):
    """name -> archive with one wrong field; array is the right content."""
    good = Item().build(DTYPE, array)
    last = good.size
    out = {}

    def put(name, place, offset, layout, *values):
        out[name] = patched(good, place, offset, layout, *values)

    for number, value in enumerate(FAR64 + (last, last - 1, 0)):
        put(f"end64_directory_{number}", "end64", 48, "<Q", value)
        put(f"locator_{number}", "locator", 8, "<Q", value)
        if value != 0:
            put(f"end64_size_{number}", "end64", 40, "<Q", value)
    for number, value in enumerate(FAR64 + (8, 6, 100_000, 0)):
        put(f"end64_count_{number}", "end64", 24, "<QQ", value, value)
    for record in ("data.pkl", "data/0"):
        where = record.replace("/", "_")
        for number, value in enumerate(FAR + (last, last - 4)):
            put(f"header_{where}_{number}", f"cd:{record}", 42, "<I", value)
            put(f"size_{where}_{number}", f"cd:{record}", 20, "<II",
                value, value)
        put(f"sizes_differ_{where}", f"cd:{record}", 20, "<I", 7)
        put(f"zip64_missing_{where}", f"cd:{record}", 20, "<II",
            0xFFFFFFFF, 0xFFFFFFFF)
        put(f"local_signature_{where}", f"local:{record}", 0, "<I", 7)
        for number, value in enumerate((0, 1, 64, 128, 4096, 0xFFFF)):
            put(f"local_extra_{where}_{number}", f"local:{record}", 28, "<H",
                value)
        for number, value in enumerate((0, 1, 78, 4096, 0xFFFF)):
            put(f"local_name_{where}_{number}", f"local:{record}", 26, "<H",
                value)
        put(f"entry_name_{where}", f"cd:{record}", 28, "<H", 0xFFFF)
        put(f"entry_extra_{where}", f"cd:{record}", 30, "<H", 0xFFFF)
        put(f"entry_comment_{where}", f"cd:{record}", 32, "<H", 0xFFFF)
        put(f"entry_signature_{where}", f"cd:{record}", 0, "<I", 7)
        put(f"deflated_{where}", f"cd:{record}", 10, "<H", 8)
        put(f"descriptor_{where}", f"descriptor:{record}", 0, "<I", 7)
    pickle = Item().pickle(DTYPE, SHAPE, (3, 1), 48)
    payload = array.tobytes()
    out["compressed"] = archive([Record("data.pkl", pickle),
                                 Record("data/0", payload, method=8)])
    out["no_end"] = Blob(bytes(good)[:-22])
    out["no_end_at_all"] = Blob(bytes(good)[:good.marks["end64"]])
    out["only_end"] = Blob(bytes(good)[-98:])
    out["end_first"] = Blob(bytes(good)[-22:], bytes(good)[:-22])
    out["garbage_after"] = Blob(good, b"\xaa" * 70_000)
    out["no_records"] = archive([])
    out["short_payload"] = archive([Record("data.pkl", pickle),
                                    Record("data/0", payload[:-1])])
    out["long_payload"] = archive([Record("data.pkl", pickle),
                                   Record("data/0", payload + b"x")])
    out["no_payload"] = archive([Record("data.pkl", pickle),
                                 Record("data/0", b"")])
    return out


def pickled(array):
    """name -> archive whose data.pkl asks for what is not there."""
    payload = array.tobytes()
    out = {}

    def put(name, pickle, key="0"):
        if not isinstance(pickle, bytes):
            pickle = pickles.dumps(pickle)
        out[name] = archive(records(pickle, {key: payload}))

    def layout(name, size=SHAPE, strides=(3, 1), offset=0, numel=12):
        put(name, Item(layout=Layout(offset=offset), numel=numel).rebuilt(
            DTYPE, size, strides, 48))

    layout("stride_past", strides=(4, 1))
    layout("stride_far", strides=(1 << 61, 1))
    layout("stride_wraps", strides=(1 << 62, 1 << 62))
    layout("stride_max", strides=((1 << 63) - 1, 1))
    layout("stride_negative", strides=(-3, 1), offset=9)
    layout("stride_wide", strides=(1 << 70, 1))
    layout("offset_past", offset=1)
    layout("offset_far", offset=(1 << 62) - 1)
    layout("offset_max", offset=(1 << 63) - 1)
    layout("offset_negative", offset=-1)
    layout("numel_wraps", numel=(1 << 62) + 12)
    layout("numel_negative", numel=-12)
    layout("numel_large", numel=1 << 40)
    layout("numel_text", numel="12")
    layout("few_strides", strides=(3,))
    layout("no_strides", strides=())
    layout("many_strides", strides=(3, 1, 1))
    layout("text_stride", strides=("3", 1))
    layout("size_wraps", size=(1 << 62, 4), strides=(0, 0))
    layout("size_negative", size=(-4, -3))
    layout("size_none", size=(None, 3))
    good = Item().rebuilt(DTYPE, SHAPE, (3, 1), 48)
    func, args, storage = good.func, good.args, good.args[0].id
    for name, other in (
            ("short", storage[:2]), ("empty", ()), ("text", "storage"),
            ("none", None), ("tag", ("module",) + storage[1:]),
            ("key", storage[:2] + (7,) + storage[3:]),
            ("class", storage[:1] + ("FloatStorage",) + storage[2:]),
            ("type", storage[:1] + (Global("torch", "Foo"),) + storage[2:]),
            ("module", storage[:1] + (Global("os", "FloatStorage"),)
             + storage[2:])):
        put("persid_" + name, Reduce(func, (Persid(other),) + args[1:]))
    for key in ("../0", "", "1", "0\0", "/etc/passwd", "x" * 5000):
        put(f"key_{key[:4]!r}", Reduce(func, (Persid(
            storage[:2] + (key,) + storage[3:]),) + args[1:]))
    for count in range(len(args)):
        put(f"args_{count}", Reduce(func, args[:count]))
    put("args_none", Reduce(func, None))
    put("storage_none", Reduce(func, (None,) + args[1:]))
    put("no_call", args)
    put("unknown_bits", Reduce(func, args + (7,)))
    text = pickles.dumps(good)
    put("empty", b"")
    put("zeros", bytes(400))
    put("large", pickles.dumps([good, "x" * 200_000]))
    put("trailing_junk_before", b"junk" + text)
    for cut in range(2, len(text), 7):
        put(f"cut_{cut}", text[:cut])
    for name, data in (("memo", b"Nr\xff\xff\xff\xff0"),
                       ("string", b"X\xff\xff\xff\xff"),
                       ("inst", b"(ios\nsystem\n"), ("ext", b"\x82\x01"),
                       ("marks", b"(" * 60_000), ("lists", b"]" * 60_000)):
        put("bomb_" + name, Reduce(func, args[:6] + (Opcodes(data),)))
    put("nested_parameters", b"\x80\x02" + 2000 *
        b"ctorch._utils\n_rebuild_parameter\n" + text[2:-1] +
        b"\x88N\x87R" * 2000 + b".")
    return out
