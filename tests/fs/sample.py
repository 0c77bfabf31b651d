"""A store whose tensors are cut in every way, and what they must hold."""

import os

import torch

import util

TURNED = "turned"
STEP = ("rows", "cols", "fine", "cube", "odd", "tiny", "scalar", "empty",
        "bf16")
NAMES = STEP + (TURNED,)


def make_tensors():
    generator = torch.Generator().manual_seed(20)

    def rand(*shape, dtype=torch.float32):
        size = torch.empty(0, dtype=dtype).element_size()
        data = torch.randint(0, 256, (*shape[:-1], shape[-1] * size),
                             dtype=torch.uint8, generator=generator)
        return data.view(dtype)

    cuts = {
        "rows": (rand(4099, 512), (4, 1)),
        "cols": (rand(1024, 2048), (1, 4)),
        "fine": (rand(1000, 301), (1, 13)),
        "cube": (rand(37, 41, 53, dtype=torch.int16), (2, 3, 2)),
        "odd": (rand(1000003, dtype=torch.uint8), (5,)),
        "tiny": (rand(1024), (1,)),
        "scalar": (rand(1)[0], ()),
        "bf16": (rand(129, 64, dtype=torch.bfloat16), (4, 2)),
    }
    made = {name: (tensor, util.grid(tensor.shape, parts))
            for name, (tensor, parts) in cuts.items()}
    made["empty"] = (torch.zeros(0, 4), [((0, 0), (0, 4))])
    return made


def build(root):
    """root/step-1 and root/sub/turned; returns name -> tensor."""
    made = make_tensors()
    util.save_chunks(root / "step-1", made, files=4,
                     objects={"note": {"a": [1, 2.5, None]}})
    turned = torch.arange(600 * 700, dtype=torch.int32).reshape(600, 700)
    util.save_chunks(root / "sub" / TURNED,
                     {TURNED: (turned, util.grid(turned.shape, (2, 2)))},
                     stored=lambda part: part.t().contiguous().t())
    tensors = {name: tensor for name, (tensor, _) in made.items()}
    tensors[TURNED] = turned
    return tensors


class Files:
    """The view files of a mount of the sample, and what each must hold."""

    def __init__(self, mount, sample):
        self.mount = mount.path
        self.step = mount.path / "step-1"
        self.root = sample.root
        self.oracle = sample.oracle
        self.tensors = sample.tensors

    def folder(self, name):
        return self.mount / "sub" / TURNED if name == TURNED else self.step

    def raw(self, name):
        return self.folder(name) / "tensors" / name

    def npy(self, name):
        return self.folder(name) / "npy" / (name + ".npy")

    def npy_bytes(self, name):
        file = self.npy(name).read_bytes()
        return file[:util.split_npy(file)[1]] + self.oracle[name]


# Reading at random

def spans(rng, total, count):
    """Offsets and sizes at edges and anywhere, some beyond the end."""
    yield from ((0, 1), (0, total), (total, 10), (max(total - 3, 0), 10),
                (total + 5000, 7), (max(total - 1, 0), 1), (0, 2 * total + 1))
    for _ in range(count):
        offset = rng.randrange(total + 1)
        size = rng.choice((1, 7, 512, 4096, 65537, 1 << 20, 3 << 20))
        yield offset, rng.randint(1, size)


def open_file(path, flags=0):
    return os.fdopen(os.open(path, os.O_RDONLY | flags), "rb", buffering=0)


def pread_all(fd, size, offset):
    parts = []
    while size:
        part = os.pread(fd, size, offset)
        if not part:
            break
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)
