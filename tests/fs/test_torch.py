"""Checkpoints that PyTorch saves here, on ranks, and loads from the mount."""

import os

import pytest
import torch

import ranks
import util
from group import Group

SAVED_ON, ALSO_ON = 4, 3
# A local state dict fits its own number of ranks only.
LOADS = [(case, world) for case in ranks.CASES for world in (SAVED_ON, ALSO_ON)
         if (case, world) != ("fsdp1_local", ALSO_ON)]
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """One group for each number of ranks, for all tests of this file."""
    folder = tmp_path_factory.mktemp("meeting")
    made = {n: Group(n, folder) for n in (SAVED_ON, ALSO_ON)}
    yield made
    for group in made.values():
        group.stop()


@pytest.fixture(scope="module")
def saved(groups, tmp_path_factory):
    """Folder of all cases; the whole tensors of each in oracle/CASE.pt."""
    root = tmp_path_factory.mktemp("saved")
    (root / "oracle").mkdir()
    (root / "store").mkdir()
    failures = {}
    for case in ranks.CASES:
        try:
            groups[SAVED_ON].run("save", case, str(root / "store"),
                                 str(root / "oracle" / (case + ".pt")))
        except AssertionError as error:
            failures[case] = str(error)
    return root, failures


def case_of(saved, case):
    root, failures = saved
    if case in failures:
        pytest.fail("PyTorch did not save it:\n" + failures[case],
                    pytrace=False)
    return root / "store", root / "oracle" / (case + ".pt")


@pytest.mark.parametrize("case", ranks.CASES)
def test_every_tensor(ckpt, saved, case):
    """Each file of the views against the tensor that was gathered."""
    root, oracle = case_of(saved, case)
    mount = ckpt(root).path
    want = torch.load(oracle)
    assert len(want) > (0 if case == "fsdp1_local" else 5)
    folder = mount / case / "tensors"
    assert set(os.listdir(folder)) == {util.encode(name) for name in want}
    for name, tensor in want.items():
        path = folder / util.encode(name)
        data = path.read_bytes()
        assert data == util.tensor_bytes(tensor), name
        dtype = str(tensor.dtype).split(".")[1]
        file = mount / case / "npy" / (util.encode(name) + ".npy")
        util.check_npy(file.read_bytes(), dtype, tensor.shape, data)
        assert os.getxattr(path, "user.ckptfs.torch_dtype").decode() == dtype


@pytest.mark.parametrize("case, world", LOADS)
def test_load_through_the_mount(ckpt, saved, groups, case, world):
    root, oracle = case_of(saved, case)
    mount = ckpt(root)
    counts = groups[world].run("load", case, str(mount.path / case),
                               str(oracle))
    assert counts[0] == len(torch.load(oracle))


def test_load_in_one_process(ckpt, saved):
    """Without any group: whole tensors from what ranks have saved."""
    root, oracle = case_of(saved, "layouts")
    mount = ckpt(root)
    want = torch.load(oracle)
    state = {"layouts": {n.split(".", 1)[1]: torch.zeros_like(t)
                         for n, t in want.items()}, "step": 0, "note": None}
    torch.distributed.checkpoint.load(
        state, checkpoint_id=mount.path / "layouts", no_dist=True)
    ranks.compare(ranks.flat(state), want)
    assert state["step"] == 12


def test_conversion_tool(ckpt, saved, tmp_path):
    """PyTorch's own converter reads the stored files of the mount."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    root, oracle = case_of(saved, "threads")
    mount = ckpt(root)
    dcp_to_torch_save(mount.path / "threads", tmp_path / "all.pt")
    state = torch.load(tmp_path / "all.pt")
    ranks.compare(ranks.flat(state), torch.load(oracle))
