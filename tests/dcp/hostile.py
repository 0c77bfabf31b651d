"""Pickles that no writer makes: each must be refused, or do no harm."""

import struct

import numpy as np

from .archive import Blob
from .checkpoint import Checkpoint, Entry, size
from .pickles import Global, Instance, Opcodes, Pairs, Reduce

# The opcodes of formats that DCP uses; every other byte is an error.
ALLOWED = set(
    b"\x80\x95\x8cX\x8d\x94qrhj\x93c\x81Rb()\x85\x86\x87t}su]aeN\x88\x89KMJ"
    b"\x8aGQCB\x8e\x8f\x90\x9102.")
HUGE64 = struct.pack("<Q", 2 ** 63 - 1)


def metadata(edit=lambda state: None, protocol=2, **style):
    """The `.metadata` of a small good checkpoint, changed by edit(state)."""
    ck = Checkpoint("nowhere", "2.6", protocol=protocol, style=style)
    ck.tensor("w", "float32", np.zeros((4, 3), "<f4"),
              [((0, 0), (2, 3)), ((2, 0), (2, 3))], items=[Blob(b"x")] * 2)
    for entry in ck.entries:
        entry.path, entry.length = "__0_0.distcp", 1
    ck.edit = edit
    return ck.metadata()


def tensor(state):
    return state["state_dict_metadata"]["w"].state


def raw(data):
    """Opcodes as the value of an attribute that nobody reads."""
    return metadata(lambda state: state.update(extra=Opcodes(data)))


def streams():
    """name -> whole pickles that break a rule of the machine."""
    forms = {
        "empty": b"", "proto_only": b"\x80\x04", "proto_cut": b"\x80",
        "proto_6": b"\x80\x06N.", "proto_255": b"\x80\xffN.",
        "stop_only": b"\x80\x04.", "no_stop": b"\x80\x04N",
        "none": b"\x80\x04N.", "number": b"\x80\x04K\x07.",
        "dict": b"\x80\x04}.", "list": b"\x80\x04].", "text": b"\x80\x04X"
        b"\x04\0\0\0text.", "symbol": b"\x80\x02ctorch\nSize\n.",
        "mark_left": b"\x80\x04(.", "two_values": b"\x80\x04NN.",
        "zeros": bytes(4096), "ones": b"\xff" * 4096,
        "elf": b"\x7fELF\2\1\1" + bytes(100), "zip": b"PK\3\4" + bytes(100),
        "json": b'{"state_dict_metadata": {}}', "marks": b"\x80\x04" +
        b"(" * 1_000_000, "global_cut": b"\x80\x02ctorch", "global_cut_2":
        b"\x80\x02ctorch\nSize", "frame_cut": b"\x80\x04\x95\0\0",
        "lists": b"\x80\x04" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
        "tuples": b"\x80\x04N" + b"\x85" * 1_000_000 + b".",
    }
    for opcode in sorted(set(range(256)) - ALLOWED):
        forms[f"first_{opcode:02x}"] = b"\x80\x04" + bytes([opcode]) + \
            metadata()[2:]
    return forms


def operands():
    """name -> opcodes that break a rule inside a good pickle."""
    short = b"X\x01\0\0\0a"
    return {
        # Lengths that the input does not have.
        "binunicode": b"X\xff\xff\xff\xff", "binunicode8": b"\x8d" + HUGE64,
        "binunicode8_wraps": b"\x8d" + b"\xff" * 8,
        "binbytes": b"B\xff\xff\xff\xff", "binbytes8": b"\x8e" + HUGE64,
        "short_binbytes": b"C\xff", "long1": b"\x8a\xff",
        # The memo.
        "long_binput": b"Nr\xff\xff\xff\xff0N", "long_binput_far":
        b"Nr\0\0\0\x100N", "binget_undefined": b"h\xfe",
        "long_binget_undefined": b"j\xff\xff\xff\x7f",
        "long_binget_wraps": b"j\xff\xff\xff\xff",
        # The stack.
        "setitems_no_mark": b"NNu", "append_to_none": b"NNa",
        "setitem_of_list": b"]NNs", "setitems_odd": b"}(Nu",
        "setitems_of_none": b"N(NNu", "appends_of_dict": b"}(Ne",
        "build_no_state": b"(b",
        "reduce_mark": b"(R", "reduce_not_tuple": b"cos\nsystem\nNR",
        "newobj_not_tuple": b"cos\nsystem\nN\x81",
        "stack_global_numbers": b"K\x01K\x02\x93",
        "stack_global_mark": b"(" + short + b"\x93",
        "tuple2_mark": b"(\x86", "tuple3_mark": b"(N\x87",
        "pop_pop": b"0" * 20, "many_tuples": b"t" * 20, "dup_mark": b"(2",
        "memoize_mark": b"(\x94", "binput_mark": b"(q\0",
        "set_key_mark": b"}(N(su",
        "frozenset_no_mark": b"\x91" * 3,
        # What must never be in a `.metadata`.
        "inst": b"(ios\nsystem\n", "obj": b"(cos\nsystem\no",
        "ext1": b"\x82\x01", "ext2": b"\x83\x01\0", "ext4": b"\x84\x01\0\0\0",
        "persid": b"Pstorage\n", "newobj_ex": b"cos\nsystem\n)}\x92",
        "next_buffer": b"\x97", "readonly_buffer": b"N\x98",
        "bytearray8": b"\x96" + HUGE64, "long4": b"\x8b\xff\xff\xff\x7f",
        "text_int": b"I7\n", "text_get": b"g0\n", "text_string": b"S'a'\n",
    }


def objects():
    """name -> good pickles of objects that make no checkpoint."""
    def put(key, value):
        return lambda state: state.__setitem__(key, value)

    def in_tensor(key, value):
        return lambda state: tensor(state).__setitem__(key, value)

    def in_chunk(key, value):
        return lambda state: tensor(state)["chunks"][1].state.__setitem__(
            key, value)

    def in_info(key, value):
        return lambda state: state["storage_data"][1][1].state.__setitem__(
            key, value)

    def loop(state):
        state["state_dict_metadata"]["self"] = state["state_dict_metadata"]

    edits = {"loop": loop, "no_sdm": lambda s: s.pop("state_dict_metadata"),
             "no_storage": lambda s: s.pop("storage_data")}
    for name, value in (("none", None), ("number", 7), ("text", "x"),
                        ("list", []), ("call", size((1,)))):
        edits[f"sdm_{name}"] = put("state_dict_metadata", value)
        edits[f"storage_{name}"] = put("storage_data", value)
        edits[f"tensor_{name}"] = put("state_dict_metadata", {"w": value})
        edits[f"chunks_{name}"] = in_tensor("chunks", value if value != []
                                            else [None])
        edits[f"chunk_{name}"] = in_tensor("chunks", [value])
        edits[f"properties_{name}"] = in_tensor("properties", value)
        edits[f"offsets_{name}"] = in_chunk("offsets", value)
        edits[f"path_{name}"] = in_info("relative_path", value if value != "x"
                                        else ("x",))
        edits[f"start_{name}"] = in_info("offset", value if value != 7
                                         else 0.5)
        edits[f"length_{name}"] = in_info("length", value if value != 7
                                          else "7")
        edits[f"key_{name}"] = put("storage_data", Pairs([
            ("key" if value == [] else value, None)]))
    for name, dims in (("negative", (-4, 3)), ("float", (4.0, 3)),
                       ("text", ("4", 3)), ("none", (None, 3)),
                       ("nested", ((4,), 3)), ("overflow", (2 ** 31,) * 3),
                       ("overflow_8", (2 ** 62, 1)), ("big", (2 ** 64, 0)),
                       ("bigger", (2 ** 300, 1)), ("wraps", (2 ** 32,) * 2),
                       ("minus_big", (-2 ** 63, 1)), ("axes", (1,) * 70),
                       ("many_axes", (1,) * 100_000)):
        edits[f"size_{name}"] = in_tensor("size", size(dims))
        edits[f"sizes_{name}"] = in_chunk("sizes", size(dims))
    edits["dtype_text"] = in_tensor("properties", Instance(
        Global("torch.distributed.checkpoint.metadata", "TensorProperties"),
        ("float32", None, False, None, False)))
    edits["index_not_text"] = put("storage_data", Pairs([(Instance(
        Global("x", "MetadataIndex"), {"fqn": 7, "index": 0}), None)]))
    return {name: metadata(edit) for name, edit in edits.items()}


def refused():
    """name -> pickles that must be refused."""
    out = {f"stream_{n}": data for n, data in streams().items()}
    out.update((f"operand_{n}", raw(d)) for n, d in operands().items())
    out.update((f"object_{n}", data) for n, data in objects().items())
    return out


def laughs(levels=40, width=10):
    """A list of ten references to a list of ten references to ..."""
    out = b"](" + b"N" * width + b"e"
    for level in range(1, levels):
        index = struct.pack("<I", 0xFF + level)
        out += b"r" + index + b"0](" + (b"j" + index) * width + b"e"
    return out


def harmless():
    """name -> extras that a reader may refuse but must survive."""
    inner = Instance(Global("mine", "Loop"), {})
    inner.state["self"] = inner
    loop = []
    loop.append(loop)
    return {
        "loop_list": metadata(lambda s: s.update(extra=loop)),
        "loop_object": metadata(lambda s: s.update(extra=inner)),
        "loop_build": raw(b"cmine\nThing\n)\x81r\0\1\0\0j\0\1\0\0b"),
        "laughs": raw(laughs()),
        "deep_lists": raw(b"]" * 200_000 + b"a" * 199_999),
        "deep_tuples": raw(b"N" + b"\x85" * 200_000),
        "deep_dicts": raw(b"}N" * 100_000 + b"N" + b"s" * 100_000),
        "deep_calls": raw(b"cmine\nf\n" + b")R" * 200_000),
        "deep_builds": raw(b"cmine\nf\n)\x81" + b"Nb" * 200_000),
        "many_marks": raw(b"(" * 200_000 + b"t" * 200_000),
        "many_dups": raw(b"(" + b"]" + b"2" * 200_000 + b"t"),
        "frame_lies": metadata().replace(
            b"\x80\x02", b"\x80\x04\x95" + b"\xff" * 8, 1),
        "many_gets": raw(b"](" + b"h\0" * 300_000 + b"e"),
        "long_symbol": raw(b"c" + b"m" * 500_000 + b"\nn\n"),
        "dup_keys": raw(b"}(" + b"NN" * 200_000 + b"u"),
        "wide_int": raw(b"\x8a\xff" + b"\x7f" * 255),
        "not_utf8": raw(b"X\x03\0\0\0\xff\xfe\xfd"),
        "reduce_text": raw(b"X\x01\0\0\0a)R"), "newobj_none": raw(b"N)\x81"),
        "additems_of_list": raw(b"](N\x90"),
        "nul_in_global": raw(b"cto\0rch\nSi\0ze\n)R"),
        "call_size": metadata(lambda s: s.update(extra=Reduce(
            Global("torch", "Size"), ((2 ** 70, -1, "x"),)))),
    }


def nul_symbols():
    """name -> pickles with a NUL in a global that a reader looks at."""
    whole = metadata(globals="global")
    out = {}
    for number, name in enumerate((
            b"ctorch\nfloat32\n", b"ctorch\nSize\n", b"metadata\nMetadata\n",
            b"TensorStorageMetadata\n", b"ChunkStorageMetadata\n",
            b"MetadataIndex\n", b"_StorageInfo\n", b"TensorProperties\n")):
        assert name in whole
        for place in (1, len(name) - 1):
            out[f"nul_{number}_{place}"] = whole.replace(
                name, name[:place] + b"\0" + name[place:])
    return out


def planners():
    """name -> values of planner_data that say nothing of "a.b", or lie."""
    loop, ring = {}, []
    loop["a.b"] = loop
    ring.append(ring)
    out = {"none": None, "list": [], "number": 7, "text": "a.b", "loop": loop,
           "call": size((1,)), "tuple": ("a.b", ("a", "b")), "empty": {},
           "keys": {7: ("a", "b"), None: ("a", "b"), ("a.b",): ("a", "b")}}
    for name, path in (
            ("none", None), ("text", "a.b"), ("list", ["a", "b"]),
            ("dict", {"a": "b"}), ("empty", ()), ("other", ("a", "c")),
            ("short", ("a",)), ("long", ("a", "b", "c")), ("tail", ("a", "b",
            "")), ("floats", ("a", 0.5)), ("bool", ("a", True)), ("nested",
            ("a", ("b",))), ("nothing", ("a", None)), ("ring", ("a", ring)),
            ("wide", ("a", 2 ** 70)), ("symbol", ("a", Global("os", "b"))),
            ("many", ("",) * 100_000)):
        out[f"path_{name}"] = {"a.b": path}
    return out


def chains():
    """name -> values of transform_descriptors that make no chain."""
    loop = []
    loop.append(loop)
    return {"number": 7, "text": "stream.zstd/1", "dict": {"stream.zstd/1": 1},
            "bytes": b"stream.zstd/1", "numbers": [1, 2], "none": [None],
            "nested": [["stream.zstd/1"]], "loop": loop,
            "line": ["stream\nzstd"], "nul": ["stream\0"],
            "delete": ["\x7f"], "long": ["x" * 257], "huge": ["x" * 10 ** 6],
            "many": ["x"] * 9, "too_many": ["x"] * 100_000}


def multiplied(tensors, chunks):
    """A pickle of T names for one tensor whose list of C boxes is shared.

    The boxes begin at one place, so one stored item per name is enough: a
    few dozen bytes for each name and each box ask for T times C shards.
    """
    def edit(state):
        tensor(state).update(
            size=size((4, 10 ** 6)),
            chunks=[Instance(Global("x", "ChunkStorageMetadata"), {
                "offsets": size((0, 0)), "sizes": size((4, 1 + i))})
                for i in range(chunks)])
        one = state["state_dict_metadata"]["w"]
        info = state["storage_data"][0][1]
        state["state_dict_metadata"] = {
            f"{i:x}": one for i in range(tensors)}
        state["storage_data"] = Pairs([(Instance(
            Global("x", "MetadataIndex"),
            {"fqn": f"{i:x}", "offset": size((0, 0))}), info)
            for i in range(tensors)])

    return metadata(edit)


def wide_state(attributes, chunks):
    """Many references to one chunk that has many more attributes."""
    def edit(state):
        chunk = tensor(state)["chunks"][0]
        chunk.state.update((f"{i:x}", None) for i in range(attributes))
        tensor(state)["chunks"] = [chunk] * chunks

    return metadata(edit)


def equal_hashes(count, offset):
    """Keys of storage_data that are all different and may look alike."""
    def edit(state):
        info = state["storage_data"][0][1]
        state["storage_data"] = Pairs([(Instance(
            Global("x", "MetadataIndex"),
            {"fqn": "w", "offset": offset(i)}), info) for i in range(count)])

    return metadata(edit)


def staggered(count):
    """Boxes that all reach past each other's start and never overlap."""
    boxes = [((i, i), (count, 1)) for i in range(count)]
    ck = Checkpoint("nowhere", "2.6", protocol=4)
    ck.tensor("w", "float32", np.zeros((), "<f4"), boxes,
              shape=(2 * count, count), items=[None] * count)
    ck.entries = [Entry("w", offsets, None, 0, None, "__0_0.distcp", 0, 1)
                  for offsets, _ in boxes]
    return ck.metadata()
