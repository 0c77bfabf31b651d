"""Many checkpoints in one folder, so that one mount serves many cases."""

import os

import numpy as np

from .boxes import grid
from .checkpoint import Checkpoint
from .items import DTYPES, random_array
from .views import check_tensor, encode

SEED = 7


class Store:
    """The checkpoints, and what must be read from each."""

    def __init__(self, root):
        self.root, self.rng = root, np.random.default_rng(SEED)
        self.tensors, self.checkpoints = [], {}

    def add(self, name, *args, **options):
        ck = Checkpoint(self.root / name, *args, **options)
        self.checkpoints[name] = ck
        return ck

    def tensor(self, ck, name, dtype, shape, boxes=None, **options):
        array = options.pop("array", None)
        if array is None:
            array = random_array(DTYPES[dtype], shape, self.rng)
        ck.tensor(name, dtype, array, boxes, **options)
        self.tensors.append((ck.folder.name, name, dtype, array))
        return array

    def basic(self, ck):
        """A sharded tensor, a whole one, a scalar and an object."""
        self.tensor(ck, "a.weight", "float32", (8, 6), grid((8, 6), (2, 3)))
        self.tensor(ck, "a.bias", "bfloat16", (7,), grid((7,), (4,)))
        self.tensor(ck, "step", "int64", ())
        ck.object("lr", 0.1)

    def mount(self, ckpt, **options):
        """Write what is not yet written, and mount the folder."""
        for ck in self.checkpoints.values():
            if not any(ck.folder.glob("*metadata")):
                ck.write()
        return ckpt(self.root, **options)

    def check(self, mount, slices=2):
        for folder, name, dtype, array in self.tensors:
            check_tensor(mount.path / folder, name, dtype, array, self.rng,
                         slices)
        for name, ck in self.checkpoints.items():
            names = {encode(each) for each in ck.tensors}
            assert set(os.listdir(mount.path / name / "tensors")) == names
            assert set(os.listdir(mount.path / name / "npy")) == \
                {each + ".npy" for each in names}
