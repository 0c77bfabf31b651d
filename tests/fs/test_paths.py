"""planner_data, as the view safetensors/ shows what was made of it.

Files are named by the first part of a path, what is flat goes together; the
keys inside are the rest of the name.
"""

import os
import re

import numpy as np
from safetensors.numpy import load_file

from dcp import Checkpoint
from dcp.forms import PATHS
from dcp.hostile import planners
from dcp.views import encode, read


def is_text(name):
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def files_of(paths, flat):
    """file name -> keys, by the rule of the README."""
    out = {}
    for name, path in paths.items():
        top, key = (path[0], name[len(path[0]) + 1:]) if len(path) > 1 else \
            (flat, name)
        keys = out.setdefault(encode(top) + ".safetensors", set())
        # The format has no room for what is no UTF-8.
        if is_text(name):
            keys.add(key)
    return out


def check(folder, want, array):
    found = {name: set(load_file(folder / "safetensors" / name))
             for name in os.listdir(folder / "safetensors")}
    assert found == want
    for name in want:
        for value in load_file(folder / "safetensors" / name).values():
            assert value.tobytes() == array.tobytes()


def test_paths_of_all_forms(ckpt, tmp_path):
    array = np.arange(6, dtype="<f4")
    for protocol in (2, 5):
        ck = Checkpoint(tmp_path / f"store/p{protocol}", protocol=protocol)
        for name, path in PATHS.items():
            ck.tensor(name, "float32", array, path=path)
        ck.object("o", 1, path=("o",))
        ck.write()
    mount = ckpt(tmp_path / "store").path
    for protocol in (2, 5):
        check(mount / f"p{protocol}", files_of(PATHS, "_flat"), array)


def test_lowest_rank_wins(ckpt, tmp_path):
    """Ranks that disagree: each tensor is of one rank, all know all paths."""
    array = np.arange(6, dtype="<f4")
    ck = Checkpoint(tmp_path / "ck", rank_local=True)
    for rank, name in enumerate(("x.a.b", "x.a.c", "x.a.d")):
        ck.tensor(name, "float32", array, ranks=[rank])
    data = {rank: {} for rank in range(3)}
    data[0] = {"x.a.b": ("x", "a.b"), "x.a.c": ("x.a", "c")}
    data[1] = {"x.a.c": ("x", "a", "c"), "x.a.d": ("y", "a", "d")}
    data[2] = {"x.a.d": ("x", "a", "d"), "x.a.b": ("x.a.b",)}
    whole = ck.planner_data
    ck.planner_data = lambda rank: data[rank]
    ck.write()
    assert whole(0)
    mount = ckpt(tmp_path / "ck").path
    check(mount, {"x.safetensors": {"a.b"}, "x.a.safetensors": {"c"},
                  "model.safetensors": {"x.a.d"}}, array)


def test_planner_data_that_says_nothing(ckpt, tmp_path):
    """No path, but a checkpoint; at once."""
    array = np.arange(6, dtype="<f4")
    for name, value in planners().items():
        ck = Checkpoint(tmp_path / "store" / name)
        ck.edit = lambda state, value=value: state.update(planner_data=value)
        ck.tensor("a.b", "float32", array)
        ck.tensor("c", "float32", array)
        ck.write()
    mount = ckpt(tmp_path / "store")
    for name in planners():
        folder = mount.path / name
        check(folder, {"model.safetensors": {"a.b", "c"}}, array)
        assert read(folder / "tensors" / "a.b") == array.tobytes()
    assert not re.search("error|warning", mount.log())
