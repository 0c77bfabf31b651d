"""The checkpoints of the benchmark.

Real PyTorch saves them where it is installed; else the tests' own writer
does, which needs NumPy only.  Both make the same tensors:

    rows      w, float32, 4 shards along axis 0
    columns   w, float32, 4 shards along axis 1: runs of a quarter row
    quad      a, b, c, d, float32, 4 shards along axis 0 each
    wide      100 000 tensors of 256 bytes, one rank
    small     one tensor of 4 KiB
    bf16      32 matrices below the key "model", bfloat16, 4 shards along
              axis 0 each: as large as quad

and PyTorch these as well:

    sharded   what bf16 has, as DCP's sharded safetensors
    llama     a Llama model of about that size with its config.json
"""

import functools
import pathlib
import shutil
import subprocess
import sys

RANKS = 4
COLUMNS = 8192          # of float32: a quarter is 8 KiB
WIDE = 100_000
QUAD = ("a", "b", "c", "d")
MATRICES = 32           # of bf16 and sharded
MATRIX_ROWS = 4096
TESTS = pathlib.Path(__file__).resolve().parents[2] / "tests"


def wide_name(index):
    return "model.layers.%d.feed_forward.weight.%d" % (index // 1000, index % 1000)


@functools.lru_cache(maxsize=None)
def has(module):
    """Asked of another process: what was imported stays in memory."""
    return subprocess.run([sys.executable, "-W", "ignore", "-c",
                           "import " + module],
                          capture_output=True).returncode == 0


def matrix_name(index):
    return "layers.%d.weight" % index


def matrix_shape(mib):
    """All matrices together have 4 * mib MiB."""
    return MATRIX_ROWS, mib * 2**22 // (2 * MATRICES * MATRIX_ROWS)


def there(folder):
    return (folder / ".metadata").exists() or \
        (folder.name == "sharded" and folder.exists())


def data_files(folder):
    return sorted([*folder.glob("*.distcp"), *folder.glob("*.safetensors")])


def make(store, names, mib, use_torch):
    """Make what is missing of `names` in the folder `store`.

    In a process of its own, so that its memory is free again.
    """
    missing = [n for n in names if not there(store / n)]
    if missing:
        subprocess.run([sys.executable, "-W", "ignore", __file__,
                        str(store), str(mib),
                        "torch" if use_torch else "own", *missing],
                       check=True)


def remove(store, names):
    for name in names:
        shutil.rmtree(store / name, ignore_errors=True)


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

    def matrices():
        shape = list(matrix_shape(mib))
        shape[0] //= RANKS
        return {"model": {
            matrix_name(i): DTensor.from_local(
                torch.randn(shape, dtype=torch.bfloat16,
                            generator=torch.Generator().manual_seed(
                                RANKS * i + rank)), mesh, [Shard(0)])
            for i in range(MATRICES)}}

    for name in names:
        state = {"rows": lambda: {"w": along(0)},
                 "columns": lambda: {"w": along(1)},
                 "quad": lambda: {n: along(0) for n in QUAD},
                 "bf16": matrices, "sharded": matrices,
                 "llama": lambda: llama_state(mesh, mib)}[name]()
        if name == "sharded":
            dcp.save(state, storage_writer=dcp.HuggingFaceStorageWriter(
                store + "/sharded.part", save_distributed=True))
        else:
            dcp.save(state, checkpoint_id=store + "/" + name)
    dist.destroy_process_group()


def llama_config(mib):
    """Of a model of about 4 * mib MiB."""
    import transformers
    return transformers.LlamaConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=5632,
        num_hidden_layers=max(1, mib // 32), num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=2048,
        tie_word_embeddings=False, architectures=["LlamaForCausalLM"],
        dtype="bfloat16")


def llama_state(mesh, mib):
    import torch
    import transformers
    from torch.distributed.tensor import DTensor, Shard
    with torch.device("meta"):
        shapes = transformers.LlamaForCausalLM(llama_config(mib)).state_dict()

    def shard(whole):
        shape = [whole.shape[0] // RANKS, *whole.shape[1:]]
        local = torch.ones(shape, dtype=torch.bfloat16)
        if len(shape) > 1:
            local.normal_(std=0.02)
        return DTensor.from_local(local, mesh, [Shard(0)])
    return {"model": {name: shard(whole) for name, whole in shapes.items()}}


def make_with_torch(store, mib, names):
    import torch
    import torch.distributed.checkpoint as dcp
    import torch.multiprocessing as mp
    of_ranks = [n for n in names if n not in ("small", "wide")]
    if of_ranks:
        remove(store, ["sharded.part"])
        (store / ".gloo").unlink(missing_ok=True)
        mp.spawn(save_sharded, (str(store), mib, of_ranks), RANKS)
        (store / ".gloo").unlink(missing_ok=True)
    if "sharded" in names:
        (store / "sharded.part").rename(store / "sharded")
    if "llama" in names:
        llama_config(mib).save_pretrained(store / "llama")
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

    def cut(axis, shape=(rows, COLUMNS)):
        size = list(shape)
        size[axis] //= RANKS
        boxes = []
        for index in range(RANKS):
            offsets = [0, 0]
            offsets[axis] = index * size[axis]
            boxes.append((tuple(offsets), tuple(size)))
        return boxes

    def whole(shape=(rows, COLUMNS)):
        return random.random(shape, "float32")

    for name in names:
        checkpoint = Checkpoint(store / name)
        if name in ("rows", "columns"):
            checkpoint.tensor("w", "float32", whole(), cut(name == "columns"))
        elif name == "quad":
            for tensor in QUAD:
                checkpoint.tensor(tensor, "float32", whole(), cut(0))
        elif name == "small":
            checkpoint.tensor("w", "float32", random.random(1024, "float32"))
        elif name == "bf16":
            shape = matrix_shape(mib)
            for index in range(MATRICES):
                key = matrix_name(index)
                checkpoint.tensor(
                    "model." + key, "bfloat16",
                    (whole(shape).view("uint32") >> 16).astype("uint16"),
                    cut(0, shape), path=("model", key))
        else:
            data = random.random((WIDE, 64), "float32")
            for index in range(WIDE):
                checkpoint.tensor(wide_name(index), "float32", data[index])
        checkpoint.write()


if __name__ == "__main__":
    folder, size, way, *wanted = sys.argv[1:]
    maker = make_with_torch if way == "torch" else make_with_own
    maker(pathlib.Path(folder), int(size), wanted)
