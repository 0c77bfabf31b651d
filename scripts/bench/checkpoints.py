"""The checkpoints of the benchmark.

Real PyTorch saves them where it is installed; else the tests' own writer
does, which needs NumPy only.  Both make the same tensors:

    rows      w, float32, 4 shards along axis 0
    columns   w, float32, 4 shards along axis 1: runs of a quarter row
    quad      a, b, c, d, float32, 4 shards along axis 0 each
    wide      100 000 tensors of 256 bytes, one rank
    small     one tensor of 4 KiB
"""

import pathlib
import subprocess
import sys

RANKS = 4
COLUMNS = 8192          # of float32: a quarter is 8 KiB
WIDE = 100_000
QUAD = ("a", "b", "c", "d")
TESTS = pathlib.Path(__file__).resolve().parents[2] / "tests"


def wide_name(index):
    return "model.layers.%d.feed_forward.weight.%d" % (index // 1000, index % 1000)


def has_torch():
    try:
        import torch  # noqa: F401
        import torch.distributed.checkpoint  # noqa: F401
    except ImportError:
        return False
    return True


def make(store, names, mib, use_torch):
    """Make what is missing of `names` in the folder `store`.

    In a process of its own, so that its memory is free again.
    """
    missing = [n for n in names if not (store / n / ".metadata").exists()]
    if missing:
        subprocess.run([sys.executable, "-W", "ignore", __file__,
                        str(store), str(mib),
                        "torch" if use_torch else "own", *missing],
                       check=True)


# With PyTorch

def save_sharded(rank, store, mib, names):
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    dist.init_process_group("gloo", init_method="file://%s/.gloo" % store,
                            rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    torch.manual_seed(rank)
    rows = mib * 2**20 // (4 * COLUMNS)

    def along(axis):
        shape = [rows, COLUMNS]
        shape[axis] //= RANKS
        return DTensor.from_local(torch.rand(shape), mesh, [Shard(axis)])

    for name in names:
        state = {"rows": lambda: {"w": along(0)},
                 "columns": lambda: {"w": along(1)},
                 "quad": lambda: {n: along(0) for n in QUAD}}[name]()
        dcp.save(state, checkpoint_id=store + "/" + name)
    dist.destroy_process_group()


def make_with_torch(store, mib, names):
    import torch
    import torch.distributed.checkpoint as dcp
    import torch.multiprocessing as mp
    sharded = [n for n in names if n in ("rows", "columns", "quad")]
    if sharded:
        (store / ".gloo").unlink(missing_ok=True)
        mp.spawn(save_sharded, (str(store), mib, sharded), RANKS)
        (store / ".gloo").unlink(missing_ok=True)
    if "small" in names:
        dcp.save({"w": torch.rand(1024)}, checkpoint_id=store / "small")
    if "wide" in names:
        data = torch.rand(WIDE, 64)
        dcp.save({wide_name(i): data[i].clone() for i in range(WIDE)},
                 checkpoint_id=store / "wide")


# Without

def make_with_own(store, mib, names):
    import numpy
    sys.path.insert(0, str(TESTS))
    from dcp import Checkpoint
    rows = mib * 2**20 // (4 * COLUMNS)
    random = numpy.random.default_rng(0)

    def cut(axis):
        size = [rows, COLUMNS]
        size[axis] //= RANKS
        boxes = []
        for index in range(RANKS):
            offsets = [0, 0]
            offsets[axis] = index * size[axis]
            boxes.append((tuple(offsets), tuple(size)))
        return boxes

    def whole():
        return random.random((rows, COLUMNS), "float32")

    for name in names:
        checkpoint = Checkpoint(store / name)
        if name in ("rows", "columns"):
            checkpoint.tensor("w", "float32", whole(), cut(name == "columns"))
        elif name == "quad":
            for tensor in QUAD:
                checkpoint.tensor(tensor, "float32", whole(), cut(0))
        elif name == "small":
            checkpoint.tensor("w", "float32", random.random(1024, "float32"))
        else:
            data = random.random((WIDE, 64), "float32")
            for index in range(WIDE):
                checkpoint.tensor(wide_name(index), "float32", data[index])
        checkpoint.write()


if __name__ == "__main__":
    folder, size, way, *wanted = sys.argv[1:]
    maker = make_with_torch if way == "torch" else make_with_own
    maker(pathlib.Path(folder), int(size), wanted)
