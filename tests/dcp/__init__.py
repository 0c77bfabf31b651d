"""An independent writer of PyTorch distributed checkpoints.

It knows the formats from their description, not from ckptfs and not through
PyTorch, so that it can write what no PyTorch writes any more, or never did.

    pickles     pickles in any spelling of opcodes
    archive     the zip64 archives of torch.save
    items       one tensor or object in such an archive
    checkpoint  `.metadata` and the files around the items
    extensions  what stream extensions make of an item
    boxes       ways to cut a tensor into shards
    forms       tables of spellings and layouts that are all right
    hostile     pickles that are not
    broken      archives that are not
    views       reads a mounted checkpoint back and compares
    store       many checkpoints in one folder, and one mount for them
"""

from . import extensions
from .archive import Blob, Record, Zeros, archive, records
from .checkpoint import Checkpoint, Entry, size
from .items import DTYPES, Item, Layout, flip_signs, object_item, random_array
from .pickles import (Global, Instance, Opcodes, Pairs, Persid, Reduce, dumps)

__all__ = ["Blob", "Checkpoint", "DTYPES", "Entry", "Global", "Instance",
           "Item", "Layout", "Opcodes", "Pairs", "Persid", "Record", "Reduce",
           "Zeros", "archive", "dumps", "extensions", "flip_signs",
           "object_item", "random_array", "records", "size"]
