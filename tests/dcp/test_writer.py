"""The writer itself, against the pickler of Python and real PyTorch."""

import io
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as torch_dcp
import zstandard

from dcp import (DTYPES, Checkpoint, Item, Layout, dumps, extensions,
                 object_item, random_array)
from dcp.boxes import grid, tiling
from dcp.forms import PATHS

SEED = 20240611
PLAIN = {"l": list(range(2001)), "d": {str(i): i for i in range(2000)},
         "t": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4.5)), "e": {},
         "n": [None, True, False, -3, 255, 256, 65536, -2 ** 31, 2 ** 31,
               2 ** 40, -2 ** 70, 0], "u": "\u00e9\U0001f600", "el": []}
SPELLINGS = ({}, {"memo": "none"}, {"memo": "binput"}, {"memo": "long_binput"},
             {"ints": "long1"}, {"tuples": "mark"}, {"batches": False},
             {"frames": False}, {"globals": "global"}, {"proto": False})


@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
def test_pickle_is_that_of_python(protocol):
    """Opcode by opcode; 2000 keys end in an empty batch."""
    emitted = dumps(PLAIN, protocol)
    assert emitted == pickle.dumps(PLAIN, protocol)
    assert b"(u" in emitted


@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
def test_every_spelling_means_the_same(protocol):
    for style in SPELLINGS:
        data = dumps(PLAIN, protocol, **style)
        assert pickle.loads(data) == PLAIN, style
    big = {"s": "x" * 100_000, "b": b"y" * 300, "l": ["z" * 70_000] * 3}
    assert pickle.loads(dumps(big, protocol)) == big
    if protocol >= 4:
        style = {"strings": "binunicode8"}
        assert pickle.loads(dumps(PLAIN, protocol, **style)) == PLAIN


def without_serialization_id(data):
    """That record is a hash of the others; its crc is in two places."""
    data = re.sub(rb"\d{40}PK\x07\x08....", b"", data, flags=re.DOTALL)
    at = data.rfind(b"PK\x01\x02") + 16
    return data[:at] + data[at + 4:]


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return without_serialization_id(file.getvalue())


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_items_are_those_of_torch_save():
    """Byte for byte, each dtype, and the layouts that torch keeps."""
    rng = np.random.default_rng(SEED)
    for name, dtype in DTYPES.items():
        if dtype.quantized or not hasattr(torch, name):
            continue
        array = random_array(dtype, (3, 5), rng)
        blob = bytes(Item().build(dtype, array))
        tensor = torch.load(io.BytesIO(blob), weights_only=False)
        assert tensor.dtype == getattr(torch, name)
        assert tensor.view(torch.uint8).numpy().tobytes() == array.tobytes()
        assert without_serialization_id(blob) == saved(tensor), name
        turned = bytes(Item(layout=Layout(order=(1, 0))).build(dtype, array))
        assert without_serialization_id(turned) == saved(
            tensor.t().contiguous().t()), name
    empty = np.zeros((0, 4), "<f4")
    assert without_serialization_id(bytes(Item().build(
        DTYPES["float32"], empty))) == saved(torch.zeros(0, 4))
    for value in (7, 0.1, "hello", None, (0.9, 0.999), [0, 1], {"a": [True]}):
        assert without_serialization_id(bytes(object_item(value))) == \
            saved(value), value


def test_torch_loads_every_form_of_item():
    rng = np.random.default_rng(SEED)
    array = rng.normal(size=(2, 3, 8)).astype("<f4").view("<c8")
    forms = [Item(era=era) for era in ("1.13", "2.0", "2.6", "2.14")]
    forms += [Item(layout=Layout(order=(2, 0, 1))),
              Item(layout=Layout(offset=7, tail=3)),
              Item(layout=Layout(strides=(50, 15, 2), offset=1)),
              Item(conj=True), Item(neg=True), Item(conj=True, neg=True),
              Item(byteorder="big"), Item(align=4096), Item(crc=False),
              Item(prefix="weights"), Item(key="41"), Item(rebuild="v3"),
              Item(byteorder=None), Item(wrap=("parameter",)),
              Item(wrap=("from_type",)), Item(requires_grad=True)]
    for item in forms:
        blob = bytes(item.build(DTYPES["complex64"], array))
        if item.crc:
            assert zipfile.ZipFile(io.BytesIO(blob)).testzip() is None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tensor = torch.load(io.BytesIO(blob), weights_only=False)
        got = tensor.detach().resolve_conj().resolve_neg().numpy()
        assert np.ascontiguousarray(got).tobytes() == array.tobytes(), item
    qint = random_array(DTYPES["qint8"], (3, 4), rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = torch.load(io.BytesIO(bytes(Item().build(
            DTYPES["qint8"], qint))), weights_only=False)
    assert tensor.int_repr().numpy().tobytes() == qint.tobytes()


@pytest.mark.parametrize("era", ("2.3", "2.4", "2.6", "2.7", "2.14"))
@pytest.mark.parametrize("files,threads", (("rank", 1), ("item", 1),
                                           ("thread", 3)))
def test_torch_loads_the_checkpoints(tmp_path, era, files, threads):
    rng = np.random.default_rng(SEED)
    ck = Checkpoint(tmp_path / "ck", era, files=files, threads=threads)
    want = {}
    cuts = {"a": ("float32", (8, 6), grid((8, 6), (4, 2))),
            "b": ("bfloat16", (5, 4, 3), tiling((5, 4, 3), rng, 9)),
            "c": ("int64", (3, 5), grid((3, 5), (4, 1))),
            "s": ("float64", (), None)}
    for name, (dtype, shape, boxes) in cuts.items():
        array = random_array(DTYPES[dtype], shape, rng)
        want[name] = ck.tensor(name, dtype, array, boxes)
    ck.object("o", {"lr": 0.1, "betas": (0.9, 0.999)})
    ck.write()
    state = {name: torch.zeros(shape, dtype=getattr(torch, dtype))
             for name, (dtype, shape, _) in cuts.items()}
    state["o"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_dcp.load(state, checkpoint_id=ck.folder, no_dist=True)
    assert state["o"] == {"lr": 0.1, "betas": (0.9, 0.999)}
    for name, array in want.items():
        got = state[name].reshape(-1).view(torch.uint8).numpy()
        assert got.tobytes() == array.tobytes(), name


def load(ck, state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_dcp.load(state, checkpoint_id=ck.folder, no_dist=True)
    return state


@pytest.mark.parametrize("chain", ((extensions.ZSTD,), (extensions.ZSTD,) * 3))
def test_torch_loads_compressed_checkpoints(tmp_path, chain):
    rng = np.random.default_rng(SEED)
    ck = Checkpoint(tmp_path / "ck", "2.14", chain=chain)
    array = random_array(DTYPES["float32"], (8, 6), rng)
    ck.tensor("w", "float32", array, grid((8, 6), (2, 2)))
    ck.tensor("plain", "float32", array, chain=())
    ck.object("o", {"lr": 0.1})
    ck.write()
    state = load(ck, {"w": torch.zeros(8, 6), "plain": torch.zeros(8, 6),
                      "o": None})
    assert state["o"] == {"lr": 0.1}
    for name in ("w", "plain"):
        assert state[name].numpy().tobytes() == array.tobytes()


class Inc(torch_dcp.filesystem.StreamTransformExtension):
    """The extension of torch's own tests: each byte one more."""

    @staticmethod
    def from_descriptor(version):
        return Inc()

    @staticmethod
    def registry_name():
        return "stream.inc"

    def get_descriptor(self):
        return extensions.INC

    def transform_to(self, output):
        class Writer(io.RawIOBase):
            def writable(self):
                return True

            def write(self, data):
                data = bytes(data)
                output.write(extensions.inc(data))
                return len(data)

            def close(self):
                if not self.closed:
                    output.close()
                super().close()
        return Writer()

    def transform_from(self, input):
        raise NotImplementedError


def undo(stored, chain):
    """What the writer of torch put in, by Python's zstandard."""
    for name in reversed(chain):
        stored = zstandard.ZstdDecompressor().decompressobj().decompress(
            stored) if name == extensions.ZSTD else \
            bytes((byte - 1) & 255 for byte in stored)
    return stored


@pytest.mark.parametrize("names", ((extensions.ZSTD,),
                                   (extensions.INC, extensions.ZSTD),
                                   (extensions.ZSTD, extensions.INC)))
def test_chains_are_in_the_order_of_torch(tmp_path, names):
    """What torch says of an item that it wrote is what encode() does."""
    kinds = {extensions.ZSTD: torch_dcp._extension.ZStandard,
             extensions.INC: Inc}
    writer = torch_dcp.FileSystemWriter(
        tmp_path / "ck", _extensions=[kinds[name]() for name in names])
    torch_dcp.save({"w": torch.arange(1000.)}, storage_writer=writer,
                   no_dist=True)
    with open(tmp_path / "ck" / ".metadata", "rb") as file:
        info, = pickle.load(file).storage_data.values()
    stored = (tmp_path / "ck" / info.relative_path).read_bytes()
    chain = info.transform_descriptors
    item = undo(stored, chain)
    assert torch.load(io.BytesIO(item))[999] == 999
    assert chain == list(reversed(names))
    mine = extensions.encode(item, chain)
    assert undo(mine, chain) == item
    if names == (extensions.ZSTD,):
        assert mine[:4] == stored[:4]


def test_paths_are_what_torch_makes_of_them(tmp_path):
    """Names are the joins of their paths."""
    for name, path in PATHS.items():
        assert ".".join(map(str, path)) == name
    state = {"a": [{"b": torch.ones(2)}, 7], "c": {0: torch.ones(1)}}
    torch_dcp.save(state, checkpoint_id=tmp_path / "ck", no_dist=True)
    with open(tmp_path / "ck" / ".metadata", "rb") as file:
        assert pickle.load(file).planner_data == {
            "a.0.b": ("a", 0, "b"), "a.1": ("a", 1), "c.0": ("c", "0")}
