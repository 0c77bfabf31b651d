"""Tables of the forms that items and paths may have."""

import errno

from .archive import Blob, Record, archive
from .items import DTYPES, Item, Layout, object_item
from .pickles import Global, Instance, Persid, Reduce

# How a chunk may lie in its storage: name -> (shape, Layout).
LAYOUTS = {
    "transposed": ((4, 3), Layout(order=(1, 0))),
    "channels_last": ((2, 3, 4, 5), Layout(order=(0, 2, 3, 1))),
    "channels_last_3d": ((2, 3, 2, 2, 5), Layout(order=(0, 2, 3, 4, 1))),
    "rotated": ((3, 4, 5), Layout(order=(2, 0, 1))),
    "offset": ((3, 4), Layout(offset=11)),
    "tail": ((3, 4), Layout(tail=9)),
    "stepped": ((3, 4), Layout(strides=(20, 3), offset=2, tail=1)),
    "rows_apart": ((5, 4), Layout(strides=(9, 1))),
    "row_of_stride_0": ((1, 4), Layout(strides=(0, 1))),
    "odd_strides_of_ones": ((1, 6, 1), Layout(strides=(99, 1, 77))),
    "scalar_offset": ((), Layout(offset=5, tail=5)),
    "large": ((300, 200), Layout(order=(1, 0))),
    "large_steps": ((300, 200), Layout(strides=(400, 2), tail=1)),
}

# Fields of Item that must not change what is read.
ITEMS = {
    "parameter": {"wrap": ("parameter",)},
    "from_type": {"wrap": ("from_type",)},
    "both": {"wrap": ("from_type", "parameter")},
    "grad": {"requires_grad": True},
    "v3": {"rebuild": "v3"},
    "old_untyped": {"rebuild": "v3", "storage_global":
                    Global("torch.storage", "_UntypedStorage")},
    "cuda": {"device": "cuda:3"},
    "cuda_storage": {"device": "cuda:0", "storage_global":
                     Global("torch.cuda", "FloatStorage")},
    "key": {"key": "41"},
    "prefix": {"prefix": "weights"},
    "dots": {"prefix": "a.b.pt"},
    "align1": {"align": 1},
    "align4096": {"align": 4096},
    "no_byteorder": {"byteorder": None},
    "no_crc": {"crc": False},
    "protocol4": {"style": {"protocol": 4}},
    "nomemo": {"style": {"memo": "none"}},
}

# Opcode spellings that must not change what is read.
STYLES = {
    "plain": {},
    "nomemo": {"memo": "none"},
    "binput": {"memo": "binput"},
    "long": {"memo": "long_binput"},
    "long1": {"ints": "long1"},
    "binint": {"ints": "binint"},
    "mark": {"tuples": "mark"},
    "single": {"batches": False},
    "noframe": {"frames": False},
    "global": {"globals": "global"},
    "binunicode": {"strings": "binunicode"},
    "binunicode8": {"strings": "binunicode8"},
}


# What planner_data says of names: name -> path.
PATHS = {
    "w": ("w",),
    "model.w": ("model", "w"),
    "app.model.0.weight": ("app", "model", "0.weight"),
    "optim.param_groups.0.lr": ("optim", "param_groups", 0, "lr"),
    "optim.state.0.step": ("optim", "state", "0", "step"),
    "list.10.70000.2147483648": ("list", 10, 70000, 2 ** 31),
    "a.b.c": ("a.b", "c"),
    "a.b.d": ("a", "b.d"),
    "": ("",),
    ".": ("", ""),
    "x..y.": ("x", "", "y", ""),
    "\u00e9.\ud800": ("\u00e9", "\ud800"),
    "deep" + ".k" * 300: ("deep",) + ("k",) * 300,
}


def unreadable():
    """Items for a float32 tensor of shape (4, 3) that cannot be read:
    name -> (Item or Blob, the errnos that say so)."""
    def call(module, name):
        return lambda node: Reduce(Global(module, name), (node,))

    def other_function(node):
        return Reduce(Global("torch._tensor", "_rebuild_from_type_v2"),
                      (Global("mine", "rebuild"), Global("mine", "Tensor"),
                       node.args, None))

    refused = (errno.EOPNOTSUPP,)
    damaged = (errno.EIO,)
    either = refused + damaged
    dtype, payload = DTYPES["float32"], bytes(48)
    instance = Instance(Global("torchao.dtypes", "AffineQuantizedTensor"),
                        {"data": Persid(("storage", 1))})
    other_key = Item(key="9").pickle(dtype, (4, 3), (3, 1), 48)
    return {
        "wrapper": (Item(wrap=(call(
            "torch._utils", "_rebuild_wrapper_subclass"),)), refused),
        "unknown": (Item(wrap=(call("os", "system"),)), refused),
        "xla": (Item(wrap=(call(
            "torch._utils", "_rebuild_device_tensor_from_numpy"),)), refused),
        "subclass": (Item(wrap=(other_function,)), refused),
        "instance": (object_item(instance, storages={"0": payload}), either),
        "plain_data": (object_item({"a": 1}), either),
        "a_number": (object_item(7), either),
        "no_storage_record": (archive([
            Record("data.pkl", other_key), Record("data/0", payload)]),
            damaged),
        "no_pickle": (archive([Record("data/0", payload)]), damaged),
        "not_an_archive": (Blob(b"\x10\0\0\0\0\0\0\0{}" + bytes(300)),
                           either),
    }
