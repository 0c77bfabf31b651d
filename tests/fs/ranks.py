"""What each rank of a gloo group does for test_torch.py.

A group is a set of processes that live as long as the test session: starting
them costs more than what they do.  A case is a model or a state dict, with a
function that makes it, on any number of ranks, and a way to save it.  The
whole tensors are kept as the oracle: what torch gathers from the ranks, or,
where a case is made of known tensors, those.
"""

import itertools
import logging
import os
import traceback
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, \
    set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, \
    distribute_tensor


def run(rank, world, meeting, pipe):
    """Body of a rank: obey until the pipe is closed."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + meeting,
                            rank=rank, world_size=world)
    while True:
        try:
            name, args = pipe.recv()
            pipe.send(call(name, args))
        except (EOFError, OSError):
            os._exit(0)


def call(name, args):
    try:
        return "done", globals()[name](*args)
    except BaseException:  # as CheckpointException is
        return "failed", traceback.format_exc()


# Cases made of known tensors

def known(seed, *shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype)


def full_layouts():
    return {
        "even": known(1, 24, 6), "uneven": known(2, 10, 3),
        "short": known(3, 2, 5), "col": known(4, 4, 24),
        "coluneven": known(5, 7, 5), "repl": known(6, 3, 2),
        "two": known(7, 9, 10), "same": known(8, 26, 2),
        "hybrid": known(9, 11, 4), "bf16": known(10, 33, 7,
                                                 dtype=torch.bfloat16),
        "third": known(11, 3, 4, 9), "one": known(12, 1),
        "scalar": torch.tensor(2.5), "none": torch.zeros(0, 3),
        "plain": known(13, 5, 5), "int": torch.arange(17),
    }


def layouts(fill):
    """Every placement; `fill` makes the tensor that is distributed."""
    world = dist.get_world_size()
    line = init_device_mesh("cpu", (world,))
    shape = (2, world // 2) if world % 2 == 0 else (1, world)
    plane = init_device_mesh("cpu", shape)
    where = {
        "even": (line, [Shard(0)]), "uneven": (line, [Shard(0)]),
        "short": (line, [Shard(0)]), "col": (line, [Shard(1)]),
        "coluneven": (line, [Shard(1)]), "repl": (line, [Replicate()]),
        "two": (plane, [Shard(0), Shard(1)]),
        "same": (plane, [Shard(0), Shard(0)]),
        "hybrid": (plane, [Replicate(), Shard(0)]),
        "bf16": (line, [Shard(0)]), "third": (line, [Shard(2)]),
        "one": (line, [Shard(0)]), "none": (line, [Shard(0)]),
    }
    state = {}
    for name, tensor in full_layouts().items():
        tensor = fill(tensor)
        state[name] = distribute_tensor(tensor, *where[name]) \
            if name in where else tensor
    return {"layouts": state, "step": 12, "note": ["a", 1.5]}


def expect_layouts():
    return {"layouts." + n: t for n, t in full_layouts().items()}


# Cases that are models

class Net(nn.Module):
    """Odd widths, so that no number of ranks divides them."""

    def __init__(self, width=3):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(10, 14), nn.ReLU(),
                                   nn.Linear(14, 7))
        self.norm = nn.LayerNorm(7)
        self.out = nn.Linear(7, width, bias=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return self.out(self.norm(self.inner(x)))


def seeded(seed, width=3):
    torch.manual_seed(seed)
    return Net(width)


def trained(model, optimizer):
    torch.manual_seed(5)
    model(torch.randn(8, 10)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def fsdp2(seed, shape=None):
    from torch.distributed.fsdp import fully_shard
    shape = shape or (dist.get_world_size(),)
    mesh = init_device_mesh("cpu", shape,
                            mesh_dim_names=("copies", "parts")[-len(shape):])
    model = seeded(seed)
    fully_shard(model.inner, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return trained(model, torch.optim.AdamW(model.parameters(), lr=0.01))


def fsdp2_replicated(seed):
    world = dist.get_world_size()
    return fsdp2(seed, (2, world // 2) if world % 2 == 0 else (1, world))


def tensor_parallel(seed, with_fsdp=False):
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, \
        RowwiseParallel, parallelize_module
    world = dist.get_world_size()
    model = seeded(seed)
    if with_fsdp:
        shape = (world // 2, 2) if world % 2 == 0 else (world, 1)
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp"))
        lane = mesh["tp"]
    else:
        lane = init_device_mesh("cpu", (world,))
    parallelize_module(model, lane, {"inner.0": ColwiseParallel(),
                                     "inner.2": RowwiseParallel()})
    if with_fsdp:
        fully_shard(model, mesh=mesh["dp"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if with_fsdp or 14 % world == 0:
        return trained(model, optimizer)
    # Uneven shards store and load; to compute with them needs more.
    return model, optimizer


def tensor_and_data_parallel(seed):
    return tensor_parallel(seed, with_fsdp=True)


def fsdp1(seed):
    from torch.distributed.fsdp import FullyShardedDataParallel
    # torch does not load a ShardedTensor of which a rank has nothing.
    model = FullyShardedDataParallel(seeded(seed, width=7),
                                     device_id=torch.device("cpu"))
    return trained(model, torch.optim.Adam(model.parameters(), lr=0.01))


def as_state(model, optimizer):
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optim": moments}


def flat(state):
    from torch.distributed.checkpoint._nested_dict import flatten_state_dict
    return {name: value for name, value in flatten_state_dict(state)[0].items()
            if isinstance(value, (torch.Tensor, ShardedTensor))}


def whole(value):
    """A distributed tensor from the parts that all ranks have."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if not isinstance(value, ShardedTensor):
        return value
    mine = [(shard.metadata.shard_offsets, shard.tensor)
            for shard in value.local_shards()]
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    full = torch.full(value.size(), float("nan"))
    for offsets, part in (entry for rank in parts for entry in rank):
        full[tuple(slice(o, o + s)
                   for o, s in zip(offsets, part.shape))] = part
    return full


def gathered(state):
    return {name: whole(value) for name, value in flat(state).items()}


MODELS = {"fsdp2": fsdp2, "fsdp2_replicated": fsdp2_replicated,
          "tensor_parallel": tensor_parallel,
          "tensor_and_data_parallel": tensor_and_data_parallel,
          "fsdp1": fsdp1}

def fsspec_writer(path):
    try:
        from torch.distributed.checkpoint import FsspecWriter
    except ImportError:
        from torch.distributed.checkpoint._fsspec_filesystem import \
            FsspecWriter
    return FsspecWriter(path)


WRITERS = {
    "layouts": lambda path: FileSystemWriter(path),
    "threads": lambda path: FileSystemWriter(path, thread_count=3),
    "items": lambda path: FileSystemWriter(path, single_file_per_rank=False),
    "fsspec": fsspec_writer,
    "unsynced": lambda path: FileSystemWriter(path, sync_files=False),
}
# Cases that are saved on a folder that has a checkpoint already.
OVERWRITES = ("overwrite",)
CASES = [*WRITERS, "async", *OVERWRITES, *MODELS, "fsdp1_local"]


def save(case, folder, oracle):
    """Save one case; rank 0 leaves the whole tensors in the file oracle."""
    path = os.path.join(folder, case)
    if case in MODELS:
        model, optimizer = MODELS[case](1)
        state = as_state(model, optimizer)
        dcp.save(state, checkpoint_id=path)
        full = gathered(state)
    elif case == "fsdp1_local":
        full = save_flat_parameters(path)
    else:
        full = expect_layouts()
        save_layouts(case, path)
    if dist.get_rank() == 0:
        torch.save({n: t.clone() for n, t in full.items()}, oracle)
    dist.barrier()


def save_layouts(case, path):
    if case in OVERWRITES:
        # Another content, more files, and an orphan that stays behind.
        dcp.save(layouts(lambda t: t + 1), storage_writer=FileSystemWriter(
            path, single_file_per_rank=False))
    state = layouts(lambda t: t)
    if case == "async":
        dcp.async_save(state, checkpoint_id=path).result()
    elif case in WRITERS:
        dcp.save(state, storage_writer=WRITERS[case](path))
    else:
        dcp.save(state, checkpoint_id=path)


def local_fsdp1(seed):
    from torch.distributed.fsdp import FullyShardedDataParallel, \
        StateDictType
    model = FullyShardedDataParallel(seeded(seed),
                                     device_id=torch.device("cpu"))
    FullyShardedDataParallel.set_state_dict_type(
        model, StateDictType.LOCAL_STATE_DICT)
    return model


def save_flat_parameters(path):
    state = {"model": local_fsdp1(1).state_dict()}
    dcp.save(state, checkpoint_id=path)
    return gathered(state)


# Safetensors, as DCP writes them

def blobs(path):
    from torch.distributed.checkpoint.filesystem import SerializationFormat
    return FileSystemWriter(
        path, thread_count=2,
        serialization_format=SerializationFormat.SAFETENSORS)


def hugging_face(path, **options):
    from torch.distributed.checkpoint import HuggingFaceStorageWriter
    return HuggingFaceStorageWriter(path, save_distributed=True, **options)


HF_WRITERS = {
    "sharded": lambda path: hugging_face(path),
    "sharded_files": lambda path: hugging_face(
        path, fqn_to_index_mapping={
            name: 1 + index % 3 for index, name in enumerate(full_layouts())}),
    "consolidated": lambda path: hugging_face(path,
                                              enable_consolidation=True),
    "blobs": blobs,
}


def hf_layouts(case):
    """What the case saves: torch consolidates no integers."""
    return {name: tensor for name, tensor in full_layouts().items()
            if case != "consolidated" or tensor.is_floating_point()}


def save_hf(case, folder):
    state = layouts(lambda t: t)["layouts"]
    state = {name: state[name] for name in hf_layouts(case)}
    if case == "blobs":
        state["step"] = 12
    dcp.save(state, storage_writer=HF_WRITERS[case](
        os.path.join(folder, case)))
    dist.barrier()


# Loading

def load(case, path, oracle):
    """Load through `path` into something else, and compare every value."""
    want = torch.load(oracle)
    if case in MODELS:
        model, optimizer = MODELS[case](2)
        state = as_state(model, optimizer)
        dcp.load(state, checkpoint_id=path)
        set_state_dict(model, optimizer, model_state_dict=state["model"],
                       optim_state_dict=state["optim"])
        return compare(gathered(as_state(model, optimizer)), want)
    if case == "fsdp1_local":
        model = local_fsdp1(2)
        state = {"model": model.state_dict()}
        dcp.load(state, checkpoint_id=path)
        model.load_state_dict(state["model"])
        return compare(gathered({"model": model.state_dict()}), want)
    state = layouts(torch.zeros_like)
    state.update(step=0, note=None)
    dcp.load(state, checkpoint_id=path)
    assert state["step"] == 12 and state["note"] == ["a", 1.5], state
    return compare(gathered(state), want)


def compare(got, want):
    assert got.keys() == want.keys(), got.keys() ^ want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name
    return len(want)


# Cases that a test makes

def cut(value, mesh, dims):
    """A nested state with each of its tensors spread over all ranks: along
    an axis, which differs from tensor to tensor, or as copies."""
    if isinstance(value, dict):
        return {key: cut(each, mesh, dims) for key, each in value.items()}
    if isinstance(value, list):
        return [cut(each, mesh, dims) for each in value]
    if not isinstance(value, torch.Tensor) or value.ndim == 0:
        return value
    axis = next(dims) % (value.ndim + 1)
    place = Replicate() if axis == value.ndim else Shard(axis)
    # Each rank has all of it, and takes its part: nothing is sent, which
    # gloo could not do with every type.
    return distribute_tensor(value, mesh, [place], src_data_rank=None)


def save_state(folder, file):
    """Save the state in `file`, by torch.save, cut over the ranks."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    state = torch.load(file, weights_only=True)
    dcp.save(cut(state, mesh, itertools.count()), checkpoint_id=folder)
    dist.barrier()


# Folders of one rank each

def of_rank(pattern):
    return pattern.replace("%r", str(dist.get_rank()))


def save_local(case, pattern, oracle):
    """save() where each rank has a disk of its own: `pattern` has %r."""
    save(case, of_rank(pattern), oracle)


def save_hf_local(case, pattern):
    save_hf(case, of_rank(pattern))


def save_state_local(pattern, file):
    save_state(of_rank(pattern), file)


def load_at(case, mounts, oracle):
    """load() where each rank has a mount of its own, or shares one."""
    mount = mounts[dist.get_rank() % len(mounts)]
    return load(case, os.path.join(mount, case), oracle)


def load_hf_at(case, mounts):
    """What save_hf_local has saved, through PyTorch's reader of it."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    path = os.path.join(mounts[dist.get_rank() % len(mounts)], case)
    state = {name: tensor for name, tensor in
             layouts(torch.zeros_like)["layouts"].items()
             if name in hf_layouts(case)}
    dcp.load(state, storage_reader=HuggingFaceStorageReader(path))
    return compare(gathered(state), hf_layouts(case))
