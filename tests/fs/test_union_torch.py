"""PyTorch saves on disks that no rank shares, and loads from any mount."""

import gc
import os

import pytest
import safetensors.torch
import torch

import ranks
import util
from group import Group

# (saved by, loaded by): processes; there is a daemon for each that saved.
WORLDS = [(4, 3), (3, 4), (2, 4), (4, 2), (3, 3)]
CASES = ("layouts", "threads", "items", "async", "fsdp2", "fsdp1",
         "tensor_parallel", "fsdp2_replicated")
HF_CASES = ("sharded", "sharded_files", "blobs")
# A case for each pair, so that each case and each pair has its turns.
LOADS = [(case, *WORLDS[(i + turn) % len(WORLDS)])
         for i, case in enumerate(CASES) for turn in (0, 2)]
pytestmark = [pytest.mark.timeout(240), pytest.mark.heavy]


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meeting")
    made = {}

    def get(world):
        if world not in made:
            made[world] = Group(world, folder)
        return made[world]

    yield get
    for group in made.values():
        group.stop()


@pytest.fixture(scope="module")
def saved(groups, tmp_path_factory):
    """saved(N) -> (pattern of the stores, folder of whole tensors)."""
    made = {}

    def get(world):
        if world not in made:
            root = tmp_path_factory.mktemp("saved%d" % world)
            pattern = root / "store%r"
            for rank in range(world):
                (root / ("store%d" % rank)).mkdir()
            for case in {c for c, n, _ in LOADS if n == world}:
                groups(world).run("save_local", case, str(pattern),
                                  str(root / (case + ".pt")))
            for case in HF_CASES:
                groups(world).run("save_hf_local", case, str(pattern))
            made[world] = pattern, root
        return made[world]
    return get


def start(job, pattern, world):
    return job(pattern, world, options="force_mpi")


def test_disks_are_apart(saved):
    """What the others rely on: no rank has all, one has the metadata."""
    pattern, root = saved(4)
    found = [sorted(os.listdir(root / ("store%d" % r) / "layouts"))
             for r in range(4)]
    assert found == [[".metadata", "__0_0.distcp"], ["__1_0.distcp"],
                     ["__2_0.distcp"], ["__3_0.distcp"]]


@pytest.mark.parametrize("case, savers, loaders", LOADS)
def test_load_at_any_mount(job, saved, groups, case, savers, loaders):
    """Each process loads at a daemon of its own choice."""
    pattern, root = saved(savers)
    the_job = start(job, pattern, savers)
    oracle = root / (case + ".pt")
    counts = groups(loaders).run("load_at", case,
                                 [str(m) for m in the_job.mounts], str(oracle))
    assert set(counts) == {len(torch.load(oracle))}


@pytest.mark.parametrize("world", [3, 4])
def test_every_tensor_on_every_mount(job, saved, world):
    pattern, root = saved(world)
    the_job = start(job, pattern, world)
    for case in {c for c, n, _ in LOADS if n == world}:
        want = torch.load(root / (case + ".pt"))
        for mount in the_job.mounts:
            for name, tensor in want.items():
                path = mount / case / "tensors" / util.encode(name)
                assert path.read_bytes() == util.tensor_bytes(tensor), path


@pytest.mark.parametrize("case", HF_CASES)
@pytest.mark.parametrize("savers, loaders", [(4, 3), (3, 4)])
def test_safetensors(job, saved, groups, case, savers, loaders):
    """By PyTorch's reader, and as one file by the library."""
    pattern, _ = saved(savers)
    the_job = start(job, pattern, savers)
    want = ranks.hf_layouts(case)
    for mount in the_job.mounts:
        file = mount / case / "safetensors" / "model.safetensors"
        state = safetensors.torch.load_file(file)
        ranks.compare(state, want)
        del state
        gc.collect()
    if case == "blobs":
        # PyTorch writes these, and does not read them.
        return
    counts = groups(loaders).run("load_hf_at", case,
                                 [str(m) for m in the_job.mounts])
    assert set(counts) == {len(want)}


def test_from_pretrained(job, groups, tmp_path):
    """A model of which each rank has a part, and one the config.json."""
    from test_view_hf import check_load, make_models
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1",
                      TRANSFORMERS_VERBOSITY="error")
    import transformers
    from types import SimpleNamespace
    transformers.utils.logging.disable_progress_bar()
    models = make_models(transformers)
    for index, (name, model) in enumerate(models.items()):
        torch.save({"model": dict(model.state_dict()), "step": 3},
                   tmp_path / "state.pt")
        groups(3).run("save_state_local", str(tmp_path / "store%r" / name),
                      str(tmp_path / "state.pt"))
        model.config.save_pretrained(tmp_path / ("store%d" % (index % 3)) /
                                     name)
    the_job = job(tmp_path / "store%r", 3, options="force_mpi")
    for name, model in models.items():
        for mount in the_job.mounts:
            check_load(SimpleNamespace(transformers=transformers),
                       mount / name / "hf", model)
    gc.collect()
