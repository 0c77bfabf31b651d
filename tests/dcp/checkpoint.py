"""Whole checkpoints: `.metadata` and the files with the items.

    ck = Checkpoint(folder, "2.14")
    ck.tensor("w", "float32", array, boxes=[((0, 0), (2, 4)), ...])
    ck.object("lr", 0.1)
    ck.write()

write() is layout(), which places the items and writes the data files, and
write_metadata(). Between the two, a test may change ck.entries (where each
item is said to be); ck.edit may change the root object.
"""

import pathlib
from dataclasses import dataclass, field

import numpy as np

from . import extensions, pickles
from .archive import Blob, release
from .items import DTYPES, Item, object_item
from .pickles import Global, Instance, Pairs, Reduce

SAVE_ID = "00000000-0000-4000-8000-000000000000"


@dataclass
class Entry:
    """One line of storage_data."""
    name: str
    offset: tuple           # of the chunk; None for an object
    index: int
    rank: int
    blob: Blob
    path: str = ""
    start: int = 0
    length: int = 0
    extra: dict = field(default_factory=dict)
    chain: tuple = ()       # of stream extensions, see extensions.py
    coders: dict = field(default_factory=lambda: extensions.CODERS)

    def stored(self):
        """The item as it is stored."""
        if not self.chain:
            return self.blob
        return Blob(extensions.encode(bytes(self.blob), self.chain,
                                      self.coders))


@dataclass
class Tensor:
    name: str
    dtype: str
    shape: tuple
    boxes: list
    path: tuple
    ranks: list


class Modules:
    """Where the classes of a release live."""

    def __init__(self, era):
        root = "torch.distributed.checkpoint"
        if release(era) < (2, 0):
            root = "torch.distributed._shard.checkpoint"
        self.metadata = root + ".metadata"
        self.filesystem = root + ".filesystem"
        self.planner = root + ".planner"
        self.properties = self.metadata
        self.enum = "_MEM_FORMAT_ENCODING"
        if release(era) < (2, 3):
            self.properties = \
                "torch.distributed._shard.sharded_tensor.metadata"
            self.enum = "MEM_FORMAT_ENCODING"


class Checkpoint:
    def __init__(self, folder, era="2.14", *, protocol=4, files="rank",
                 threads=1, enum="reduce", path="pathlib", planner=None,
                 extras=None, root=None, style=None, rank_local=False,
                 chain=()):
        """planner: has it planner_data. chain: the stream extensions of each
        item that does not say otherwise, see extensions.py.
        """
        self.folder = pathlib.Path(folder)
        self.era, self.modules = era, Modules(era)
        self.protocol, self.style = protocol, style or {}
        self.files, self.threads = files, threads
        self.path, self.rank_local, self.chain = path, rank_local, chain
        self.planner = release(era) >= (2, 0) if planner is None else planner
        self.extras = extras or {}
        self.root = root or self.cls("Metadata")
        self.tensors, self.objects, self.entries = {}, {}, []
        self.edit = lambda state: None
        self.layout_node = Reduce(Global("torch.serialization", "_get_layout"),
                                  ("torch.strided",))
        self.enum_node = self.memory_format(enum)

    def cls(self, name):
        return Global(self.modules.metadata, name)

    def memory_format(self, spelling):
        enum = Global(self.modules.properties, self.modules.enum)
        if spelling == "getattr":
            return Reduce(Global("builtins", "getattr"),
                          (enum, "TORCH_CONTIGUOUS_FORMAT"))
        return Reduce(enum, (0,))

    # -- content

    def tensor(self, name, dtype, array, boxes=None, *, items=None,
               ranks=None, shape=None, path=None, chain=None, coders=None,
               **item):
        """A tensor; boxes default to one of everything.

        items: per box an Item, a finished Blob, or None for a chunk that
        storage_data does not have. item: fields of Item for all boxes.
        path: keys and positions in the state dict. chain, coders: stream
        extensions.
        """
        array = np.asarray(array)
        shape = tuple(array.shape if shape is None else shape)
        boxes = [((0,) * len(shape), shape)] if boxes is None else list(boxes)
        ranks = list(ranks or range(len(boxes)))
        item.setdefault("era", self.era)
        items = items or [Item(**item)] * len(boxes)
        self.tensors[name] = Tensor(name, dtype, shape, boxes,
                                    path or (name,), ranks)
        for index, ((offsets, sizes), each) in enumerate(zip(boxes, items)):
            if each is None:
                continue
            if isinstance(each, Item):
                part = tuple(slice(o, o + n) for o, n in zip(offsets, sizes))
                each = each.build(DTYPES[dtype],
                                  array[part].reshape(tuple(sizes)))
            self.put(Entry(name, tuple(offsets), index, ranks[index], each),
                     chain, coders)
        return array

    def object(self, name, value, *, rank=0, path=None, chain=None,
               **options):
        """An object; value is a Blob, a pickle (bytes), or plain data."""
        if not isinstance(value, Blob):
            value = object_item(value, self.era, **options)
        self.objects[name] = (path or (name,), rank)
        self.put(Entry(name, None, None, rank, value), chain)

    def put(self, entry, chain=None, coders=None):
        entry.chain = tuple(self.chain if chain is None else chain)
        entry.coders = coders or entry.coders
        self.entries.append(entry)

    # -- files

    def write(self):
        self.layout()
        self.write_metadata()
        return self

    def layout(self):
        """Place the items, objects first, and write the data files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        count, contents = {}, {}
        ranks = [r for t in self.tensors.values() for r in t.ranks]
        if self.files == "rank":
            contents = {f"__{rank}_0.distcp": Blob() for rank in ranks}
        for entry in sorted(self.entries, key=lambda e: e.offset is not None):
            number = count.setdefault(entry.rank, 0)
            count[entry.rank] += 1
            if self.files == "rank":
                number = 0
            elif self.files == "thread":
                number %= self.threads
            entry.path = f"__{entry.rank}_{number}.distcp"
            blob, stored = contents.setdefault(entry.path, Blob()), \
                entry.stored()
            entry.start, entry.length = blob.size, stored.size
            blob.add(stored)
        for path, blob in contents.items():
            with open(self.folder / path, "wb") as file:
                blob.write(file)

    def write_metadata(self):
        if not self.rank_local:
            (self.folder / ".metadata").write_bytes(self.metadata())
            return
        for rank in sorted({entry.rank for entry in self.entries}):
            (self.folder / f"__{rank}.metadata").write_bytes(
                self.metadata(rank))

    def metadata(self, rank=None):
        """The pickle; for one rank only if given."""
        state = self.state(rank)
        self.edit(state)
        return pickles.dumps(Instance(self.root, state), self.protocol,
                             **self.style)

    # -- the objects of the pickle

    def state(self, rank=None):
        state = {"state_dict_metadata": self.state_dict_metadata(rank),
                 "planner_data": self.planner_data(rank),
                 "storage_data": Pairs(
                     (self.index(e), self.info(e)) for e in self.entries
                     if rank in (None, e.rank))}
        if release(self.era) >= (2, 4):
            state["storage_meta"] = self.storage_meta()
        if release(self.era) >= (2, 9):
            state["version"] = "1.0.0"
        state.update(self.extras)
        return state

    def state_dict_metadata(self, rank):
        out = {}
        for tensor in self.tensors.values():
            boxes = [box for box, r in zip(tensor.boxes, tensor.ranks)
                     if rank in (None, r)]
            if boxes or rank is None:
                out[tensor.name] = self.tensor_metadata(tensor, boxes)
        for name, (_, r) in self.objects.items():
            if rank in (None, r):
                out[name] = Instance(self.cls("BytesStorageMetadata"))
        return out

    def tensor_metadata(self, tensor, boxes):
        return Instance(self.cls("TensorStorageMetadata"), {
            "properties": self.properties(tensor.dtype),
            "size": size(tensor.shape),
            "chunks": [Instance(self.cls("ChunkStorageMetadata"),
                                {"offsets": size(o), "sizes": size(n)})
                       for o, n in boxes]})

    def properties(self, dtype):
        return Instance(Global(self.modules.properties, "TensorProperties"),
                        (Global("torch", dtype), self.layout_node, False,
                         self.enum_node, False))

    def planner_data(self, rank):
        if not self.planner:
            return None
        out = {t.name: t.path for t in self.tensors.values()
               if rank in (None, *t.ranks)}
        out.update((name, path) for name, (path, r) in self.objects.items()
                   if rank in (None, r))
        return out

    def index(self, entry):
        state = {"fqn": entry.name, "index": entry.index}
        if entry.offset is not None:
            state["offset"] = size(entry.offset)
        return Instance(self.cls("MetadataIndex"), state)

    def info(self, entry):
        state = {"relative_path": entry.path, "offset": entry.start,
                 "length": entry.length}
        if entry.chain:
            state["transform_descriptors"] = list(entry.chain)
        state.update(entry.extra)
        return Instance(Global(self.modules.filesystem, "_StorageInfo"), state)

    def storage_meta(self):
        state = {"checkpoint_id": checkpoint_id(self.path),
                 "save_id": SAVE_ID, "load_id": None}
        if release(self.era) >= (2, 7):
            state["modules"] = []
        return Instance(self.cls("StorageMeta"), state)


def size(dims):
    """torch.Size"""
    return Reduce(Global("torch", "Size"), (tuple(dims),))


def checkpoint_id(spelling):
    """The path that a checkpoint was saved to, as each Python pickles it."""
    return {
        "parts": Reduce(Global("pathlib", "PosixPath"), ("/", "a", "b")),
        "local": Reduce(Global("pathlib._local", "PosixPath"), ("/a/b",)),
        "pathlib": Reduce(Global("pathlib", "PosixPath"), ("/a/b",)),
        "windows": Reduce(Global("pathlib", "WindowsPath"), ("C:\\", "a")),
        "str": "/a/b",
        "none": None,
    }[spelling]
