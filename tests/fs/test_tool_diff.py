# SPDX-License-Identifier: Apache-2.0
"""ckptfs diff: states against what was changed, figures against NumPy."""

import json
import math
import os

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.checkpoint._extension import ZStandard

import util
from conftest import DATA
from test_tool_stat import (COMPLEX, FLOATS, INTEGERS, cut, damage, floats,
                            integers, name_of, on_cores)
from tooling import BAD, FAILED, check_lost_output, check_usage, tool  # noqa

pytestmark = pytest.mark.filterwarnings("ignore")
STATES = ("equal", "changed", "added", "removed", "dtype", "shape",
          "unreadable")
FIXTURES = DATA / "fixtures"


def save(path, tensors, parts=1, **kwargs):
    """As DCP, cut into parts^ndim pieces; or as safetensors, by the name."""
    if str(path).endswith(".safetensors"):
        save_file(tensors, path)
    else:
        util.save_chunks(path, {n: (t, cut(t, parts))
                                for n, t in tensors.items()}, **kwargs)
    return path


def run(tool, a, b, *args):
    """name -> object, and the summary; the status must fit."""
    process = tool.start("diff", "--json", a, b, *args)
    out, err = process.communicate(timeout=util.patience(100))
    lines = [json.loads(line) for line in out.decode().splitlines()]
    summary = lines.pop()["summary"]
    found = {o["name"]: o for o in lines}
    assert len(found) == len(lines)
    for state in STATES:
        assert summary[state] == sum(o["state"] == state for o in lines)
    same = summary["equal"] == len(lines)
    assert process.returncode == (0 if same else BAD), err
    return found, summary


# The oracle

def numbers(tensor):
    """As double, or complex of doubles; integers as they are."""
    if tensor.dtype == torch.complex32:
        tensor = tensor.to(torch.complex64)
    if tensor.dtype.is_complex:
        return tensor.numpy().astype(np.complex128)
    if tensor.dtype.is_floating_point:
        return (tensor if tensor.dtype == torch.float64
                else tensor.float()).double().numpy()
    return tensor.numpy()


def first_difference(a, b):
    """Of bytes where types are the same, else of values."""
    if a.dtype == b.dtype:
        size = a.element_size()
        differ = (util.as_array(util.tensor_bytes(a), a.shape, size) !=
                  util.as_array(util.tensor_bytes(b), b.shape, size))
    else:
        x, y = numbers(a), numbers(b)
        differ = (x != y) & ~(np.isnan(x) & np.isnan(y))
    where = np.argwhere(differ)
    return [int(i) for i in where[0]] if len(where) else None


def expect(a, b):
    x, y = numbers(a).reshape(-1), numbers(b).reshape(-1)
    nan_a, nan_b = np.isnan(x), np.isnan(y)
    x, y = x[~(nan_a | nan_b)], y[~(nan_a | nan_b)]
    if a.dtype == b.dtype and x.dtype in (np.int64, np.uint64):
        apart = np.array([float(abs(int(i) - int(j))) for i, j in zip(x, y)])
    elif x.dtype == bool or x.dtype.kind in "iu":
        apart = np.abs(x.astype(np.float64) - y.astype(np.float64))
    else:
        with np.errstate(invalid="ignore"):
            d = x - y
            if d.dtype.kind == "c":
                d = np.where(x.real == y.real, 0, d.real) + \
                    1j * np.where(x.imag == y.imag, 0, d.imag)
            apart = np.where(x == y, 0, np.abs(d))
    size = np.abs(x.astype(np.complex128))
    infinite = np.isinf(apart)
    scale = np.max(apart[~infinite], initial=0) or 1.0
    reach = np.max(size[np.isfinite(size)], initial=0) or 1.0
    top = math.sqrt(math.fsum((apart[~infinite] / scale) ** 2)) * scale
    norm = math.sqrt(math.fsum((size[np.isfinite(size)] / reach) ** 2))
    relative = 0.0
    if infinite.any() or (top > 0 and norm == 0):
        relative = None
    elif top > 0:
        relative = top / norm / reach if size.max() > 0 else None
    return {"max_abs": None if infinite.any() else
            float(np.max(apart, initial=0)), "relative_l2": relative,
            "first": first_difference(a, b), "infinite": int(infinite.sum()),
            "nan_a": int(nan_a.sum()), "nan_b": int(nan_b.sum())}


def check_figures(found, a, b):
    want = expect(a, b)
    for key in "first", "infinite", "nan_a", "nan_b":
        assert found[key] == want[key], (found["name"], key)
    for key in "max_abs", "relative_l2":
        assert (found[key] is None) == (want[key] is None), (found, want)
        if want[key] is not None:
            assert found[key] == pytest.approx(want[key], rel=1e-12,
                                               abs=0), (found, want)


# States

def test_states(tool, tmp_path):
    left = {"same": torch.arange(5.), "changed": torch.arange(6),
            "gone": torch.ones(2), "type": torch.ones(3),
            "shape": torch.ones(2, 3), "both": torch.ones(2, 3),
            "empty": torch.zeros(0, 2), "scalar": torch.tensor(1.)}
    right = {**left, "changed": torch.tensor([0, 1, 2, 9, 4, 5]),
             "new": torch.ones(4, 4).bfloat16(),
             "type": torch.ones(3).bfloat16(), "shape": torch.ones(3, 2),
             "both": torch.ones(6).half(), "scalar": torch.tensor(2.)}
    del right["gone"]
    want = {"same": "equal", "changed": "changed", "gone": "removed",
            "type": "dtype", "shape": "shape", "both": "shape",
            "empty": "equal", "scalar": "changed", "new": "added"}
    for a, b in ("a", "b"), ("a.safetensors", "b.safetensors"):
        save(tmp_path / a, left, 2)
        save(tmp_path / b, right)
    for a, b in (("a", "b"), ("a.safetensors", "b.safetensors"),
                 ("a", "b.safetensors"), ("a.safetensors", "b")):
        for args in [], ["--values"]:
            found, summary = run(tool, tmp_path / a, tmp_path / b, *args)
            assert {n: o["state"] for n, o in found.items()} == want
            assert found["new"]["dtype"] == "BF16"
            assert found["new"]["shape"] == [4, 4]
            assert found["type"]["torch_dtype_b"] == "bfloat16"
            assert found["type"]["nbytes_b"] == 6
            assert found["shape"]["shape_b"] == [3, 2]
            assert found["both"]["dtype_b"] == "F16"
            assert "shape_b" not in found["changed"]
            assert ("max_abs" in found["changed"]) == bool(args)
            assert "max_abs" not in found["shape"]
            assert ("max_abs" in found["type"]) == bool(args)


def test_lines(tool, tmp_path):
    left = {"w": torch.tensor([[1., 2], [3, 4]]), "gone": torch.ones(2),
            "t": torch.ones(2), "same": torch.ones(3),
            "n": torch.tensor([math.nan, 1, math.inf])}
    right = {**left, "w": torch.tensor([[1., 2], [3, 4.5]]),
             "t": torch.ones(2).double(), "new": torch.ones(1),
             "n": torch.tensor([math.nan, math.nan, -math.inf])}
    del right["gone"]
    a = save(tmp_path / "a.safetensors", left)
    b = save(tmp_path / "b.safetensors", right)
    lines = tool("diff", a, b, status=BAD).stdout.splitlines()
    assert sorted(" ".join(line.split()) for line in lines[:-1]) == [
        "added new F32 [1]", "changed n F32 [3]", "changed w F32 [2,2]",
        "dtype t F32 [2] -> F64 [2]", "removed gone F32 [2]"]
    assert lines[-1] == "1 equal, 2 changed, 1 added, 1 removed, 1 dtype"
    done = tool("diff", "--values", a, b, status=BAD)
    assert done.stderr == ""
    lines = sorted(" ".join(line.split())
                   for line in done.stdout.splitlines()[:-1])
    assert lines[1] == "changed n F32 [3] max inf, relative inf, " \
        "first [1], 1 infinite, NaN 1 and 2"
    assert lines[2] == "changed w F32 [2,2] max 0.5, relative %.6g, " \
        "first [1,1]" % (0.5 / math.sqrt(30))
    assert lines[3] == "dtype t F32 [2] -> F64 [2] max 0, relative 0"
    assert tool.quiet("diff", a, a) == "5 equal\n"


def test_quiet(tool, tmp_path):
    a = save(tmp_path / "a", {"w": torch.ones(9)}, 2)
    b = save(tmp_path / "b", {"w": torch.ones(9)})
    c = save(tmp_path / "c", {"w": torch.zeros(9)})
    d = save(tmp_path / "d", {"v": torch.ones(9)})
    assert tool.quiet("diff", "-q", a, b) == ""
    assert tool.quiet("diff", "--quiet", "--values", a, b) == ""
    for other in c, d:
        assert tool.quiet("diff", a, other, "-q", status=BAD) == ""
    tool("diff", "-q", a, tmp_path / "none", status=FAILED)


def test_select(tool, tmp_path):
    a = save(tmp_path / "a.safetensors", {
        "model.w": torch.ones(2), "model.b/c": torch.ones(2),
        "optim.w": torch.ones(2)})
    b = save(tmp_path / "b.safetensors", {
        "model.w": torch.ones(2), "model.b/c": torch.zeros(2),
        "new.w": torch.ones(2)})
    assert set(run(tool, a, b)[0]) == {"model.w", "model.b/c", "optim.w",
                                       "new.w"}
    found, _ = run(tool, a, b, "--select", "*.w")
    assert {n: o["state"] for n, o in found.items()} == {
        "model.w": "equal", "optim.w": "removed", "new.w": "added"}
    found, _ = run(tool, a, b, "--select=model*c", "--select=model*w")
    assert set(found) == {"model.w", "model.b/c"}
    assert tool.quiet("diff", a, b, "--select=model.w") == "1 equal\n"
    done = tool("diff", a, b, "--select=x*", status=BAD)
    assert "no name matches" in done.stderr


# Formats and shards

def test_any_sharding_and_format(tool, tmp_path):
    generator = torch.Generator().manual_seed(1)
    tensors = {name_of(t): floats(t, generator, (37, 41)) for t in FLOATS}
    tensors.update((name_of(t), integers(t, generator, (12, 5, 7)))
                   for t in INTEGERS)
    places = [save(tmp_path / "one", tensors),
              save(tmp_path / "cut", tensors, 3, files=4),
              save(tmp_path / "turned", tensors, 2, stored=lambda part:
                   part.t().contiguous().t() if part.dim() == 2 else part),
              save(tmp_path / "all.safetensors", tensors)]
    for a in places:
        for b in places:
            for args in [], ["--values"]:
                found, _ = run(tool, a, b, *args)
                assert {o["state"] for o in found.values()} == {"equal"}
                assert len(found) == len(tensors)


def test_fixtures(tool):
    """One state that many releases saved in many forms."""
    old = FIXTURES / "torch-2.6.0" / "dtensor4"
    for name in "dtensor4", "dtensor4_file_per_item", "hf_sharded4_indexed":
        found, summary = run(tool, old, FIXTURES / "torch-2.14.1" / name,
                             "--values")
        assert {o["state"] for o in found.values()} == {"equal"}, name
        assert summary["equal"] > 10
        assert (summary["objects_left_out"] > 0) == name.startswith("hf")


def test_packed_elements(tool, tmp_path):
    """DCP counts the bytes of float4, safetensors its elements."""
    data = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    other = data.clone()
    other[3, 2] ^= 1

    def four(tensor):
        return {"f4": tensor.view(torch.float4_e2m1fn_x2)}

    a = save(tmp_path / "a", four(data), stored=lambda part: part)
    b = save(tmp_path / "b.safetensors", four(data))
    c = save(tmp_path / "c.safetensors", four(other))
    assert run(tool, a, b)[0]["f4"]["state"] == "equal"
    found, _ = run(tool, a, c, "--values")
    assert found["f4"]["state"] == "changed"
    assert "max_abs" not in found["f4"]


# Figures

def changed(tensor, generator):
    """A copy in which some elements are others."""
    other = tensor.clone(memory_format=torch.contiguous_format)
    size = tensor.element_size()
    data = other.reshape(-1).view(torch.uint8).reshape(-1, size)
    count = int(torch.randint(1, 9, (), generator=generator))
    where = torch.randint(0, len(data), (count,), generator=generator)
    data[where] = data.flip(0)[where]
    data[where[0], 0] ^= 1
    return data.reshape(-1).view(tensor.dtype).reshape(tensor.shape)


def tensors_of_all_types():
    generator = torch.Generator().manual_seed(17)
    for shape in (3, 5), (60, 70), (11, 3, 40):
        for dtype in FLOATS:
            tensor = floats(dtype, generator, shape)
            yield tensor, changed(tensor, generator)
            tensor = torch.nan_to_num(tensor.float(), 1, 2, 3).to(dtype)
            yield tensor, changed(tensor, generator)
        for dtype in INTEGERS:
            tensor = integers(dtype, generator, shape)
            yield tensor, changed(tensor, generator)
        for dtype in COMPLEX:
            part = {torch.complex32: torch.float16,
                    torch.complex64: torch.float32}.get(dtype, torch.float64)
            tensor = torch.view_as_complex(floats(part, generator,
                                                  (*shape, 2)))
            yield tensor, changed(tensor, generator)
    tensor = torch.rand(1000, generator=generator) < 0.5
    yield tensor, ~tensor


def test_figures_of_every_type(tool, tmp_path):
    pairs = {"%d %s" % (i, name_of(a.dtype)): (a, b)
             for i, (a, b) in enumerate(tensors_of_all_types())}
    a = save(tmp_path / "a", {n: p[0] for n, p in pairs.items()}, 2)
    b = save(tmp_path / "b", {n: p[1] for n, p in pairs.items()}, 1)
    found, _ = run(tool, a, b, "--values")
    for name, (left, right) in pairs.items():
        assert found[name]["state"] == "changed", name
        check_figures(found[name], left, right)


def test_figures_where_types_differ(tool, tmp_path):
    generator = torch.Generator().manual_seed(18)
    kinds = [t for t in (*FLOATS, *INTEGERS) if t not in (
        torch.int64, torch.uint64, torch.float8_e8m0fnu)]
    left, right = {}, {}
    for i, x in enumerate(kinds):
        for y in kinds[i + 1:]:
            name = "%s %s" % (name_of(x), name_of(y))
            made = torch.randint(0, 100, (6, 30), generator=generator)
            left[name] = made.float().to(x)
            made[2, 3] += 1 if len(left) % 2 else 0
            right[name] = made.float().to(y)
    a = save(tmp_path / "a", left, 2)
    b = save(tmp_path / "b", right)
    found, summary = run(tool, a, b, "--values")
    assert summary["dtype"] == len(left)
    for name, tensor in left.items():
        assert found[name]["dtype_b"] != found[name]["dtype"]
        check_figures(found[name], tensor, right[name])
    assert any(o["first"] is None for o in found.values())


def test_a_rounded_model(tool, tmp_path):
    """What one wants to know after a conversion."""
    tensor = torch.randn(300, 500, generator=torch.Generator().manual_seed(2))
    a = save(tmp_path / "a", {"w": tensor}, 3)
    b = save(tmp_path / "b.safetensors", {"w": tensor.bfloat16()})
    found, _ = run(tool, a, b, "--values")
    check_figures(found["w"], tensor, tensor.bfloat16())
    assert 1e-4 < found["w"]["relative_l2"] < 4e-3


CASES = {
    "negative zero": ([0., 1], [-0., 1]),
    "nan payload": ([math.nan, 1], None),
    "infinities": ([math.inf, -math.inf, 1], [math.inf, -math.inf, 2]),
    "opposite": ([math.inf, 1], [-math.inf, 1]),
    "zero left": ([0., 0], [0., 3]),
    "all nan": ([math.nan], [1.]),
}


def test_special_values(tool, tmp_path):
    left, right = {}, {}
    for name, (a, b) in CASES.items():
        left[name] = torch.tensor(a)
        right[name] = torch.tensor(a if b is None else b)
    right["nan payload"].view(torch.int32)[0] += 5
    for name, scale in ("large", 1e300), ("small", 1e-300):
        left[name] = torch.tensor([1., 2], dtype=torch.float64) * scale
        right[name] = torch.tensor([1., 1], dtype=torch.float64) * scale
    left["int64"] = torch.tensor([2 ** 62, 2 ** 62 + 1])
    right["int64"] = torch.tensor([2 ** 62, 2 ** 62 + 2])
    a = save(tmp_path / "a.safetensors", left)
    b = save(tmp_path / "b.safetensors", right)
    found, _ = run(tool, a, b, "--values")
    for name in left:
        assert found[name]["state"] == "changed", name
        check_figures(found[name], left[name], right[name])
    assert found["negative zero"]["max_abs"] == 0
    assert found["int64"]["max_abs"] == 1
    assert found["infinities"]["infinite"] == 0


@pytest.mark.parametrize("where", [0, 1, (1 << 20) - 1, 1 << 20,
                                   (1 << 20) + 1, 2_999_999, 3_000_000])
def test_one_element_of_many(tool, tmp_path, where):
    """Wherever the pieces meet that are read."""
    tensor = torch.zeros(3_000_001)
    a = save(tmp_path / "a.safetensors", {"w": tensor})
    other = tensor.clone()
    other[where] = 1
    b = save(tmp_path / "b", {"w": other}, 4)
    assert run(tool, a, b)[0]["w"]["state"] == "changed"
    found = run(tool, a, b, "--values")[0]["w"]
    assert found["first"] == [where] and found["max_abs"] == 1


def test_output_does_not_depend_on_threads(tool, tmp_path):
    generator = torch.Generator().manual_seed(4)
    left = {"a": torch.randn(3_000_001, generator=generator),
            "b": torch.randn(5_000_000, generator=generator).bfloat16(),
            **{"s%d" % i: torch.randn(9, generator=generator)
               for i in range(30)}}
    right = {n: t + (torch.randn(t.shape, generator=generator) * 1e-3).to(
        t.dtype) for n, t in left.items()}
    a, b = save(tmp_path / "a", left, 3), save(tmp_path / "b", right, 2)
    for args in ["--values"], ["--values", "--json"], [], ["--json"]:
        args = "diff", *args, a, b
        one = tool.quiet(*args, status=BAD, preexec_fn=on_cores(1))
        for _ in range(3):
            assert tool.quiet(*args, status=BAD) == one


# What is not a tensor

def test_objects(tool, tmp_path):
    tensors = {"w": (torch.ones(2), [((0,), (2,))])}
    util.save_chunks(tmp_path / "a", tensors, objects={
        "lr": {"lr": 0.1}, "step": 5, "gone": 1, "plain": (1, 2),
        "class": complex(1, 2), "other": complex(1, 2)})
    util.save_chunks(tmp_path / "b", tensors, objects={
        "lr": {"lr": 0.2}, "step": 5, "new": 1, "plain": [1, 2],
        "class": complex(1, 2), "other": complex(1, 3)})
    found, summary = run(tool, tmp_path / "a", tmp_path / "b")
    assert {n: o["state"] for n, o in found.items()} == {
        "w": "equal", "lr": "changed", "step": "equal", "gone": "removed",
        "new": "added", "plain": "equal", "class": "equal",
        "other": "changed"}
    assert found["lr"]["dtype"] == "object" and "shape" not in found["lr"]
    assert summary["objects_left_out"] == 0
    lines = tool("diff", tmp_path / "a", tmp_path / "b", status=BAD).stdout
    assert "changed     lr     object\n" in lines
    found, _ = run(tool, tmp_path / "a", tmp_path / "b", "--select=s*")
    assert set(found) == {"step"}


def test_safetensors_has_no_objects(tool, tmp_path):
    util.save_chunks(tmp_path / "a", {"w": (torch.ones(2), [((0,), (2,))])},
                     objects={"lr": 1, "step": 2})
    b = save(tmp_path / "b.safetensors", {"w": torch.ones(2)})
    for pair in (tmp_path / "a", b), (b, tmp_path / "a"):
        found, summary = run(tool, *pair)
        assert set(found) == {"w"} and summary["objects_left_out"] == 2
        assert tool.quiet("diff", *pair) == \
            "1 equal, 2 that are no tensors left out\n"


def test_stream_extensions(tool, tmp_path):
    state = {"w": torch.arange(1000.), "o": {"a": [1, 2]}, "c": complex(1)}
    dcp.save(state, checkpoint_id=tmp_path / "plain", no_dist=True)
    state["w"] = state["w"].clone()
    dcp.save(state, no_dist=True, storage_writer=dcp.FileSystemWriter(
        tmp_path / "packed", _extensions=[ZStandard()]))
    found, _ = run(tool, tmp_path / "plain", tmp_path / "packed", "--values")
    assert {n: o["state"] for n, o in found.items()} == {
        "w": "equal", "o.a": "equal", "c": "equal"}


# What cannot be read

def test_damage(tool, tmp_path):
    tensors = {n: torch.arange(100.) for n in "abcd"}
    a, b = (save(tmp_path / n, tensors, 2, objects={"o": complex(1)})
            for n in "AB")
    file = damage(a, "b")
    damage(b, "c")
    for args in [], ["--values"]:
        found, summary = run(tool, a, b, *args)
        assert {n: o["state"] for n, o in found.items()} == {
            "a": "equal", "b": "unreadable", "c": "unreadable",
            "d": "equal", "o": "equal"}
        done = tool("diff", *args, a, b, status=BAD)
        assert "%s: b: %s: byte " % (a, file) in done.stderr
        assert "%s: c: " % b in done.stderr
        assert len(done.stderr.splitlines()) == 2
        assert "2 unreadable" in done.stdout
    done = tool("diff", "-q", a, b, status=BAD)
    assert done.stdout == ""


def test_a_difference_before_the_damage(tool, tmp_path):
    """Without values the first thing that is found decides."""
    tensor = torch.zeros(3_000_000)
    a = save(tmp_path / "a.safetensors", {"w": tensor})
    tensor[5] = 1
    b = save(tmp_path / "b", {"w": tensor}, 2)
    last = max(util.items_of(b).items(), key=lambda i: i[0][1])[1]
    with open(b / last.relative_path, "r+b") as file:
        file.seek(last.offset)
        file.write(b"damage")
    os.utime(b / ".metadata")
    for _ in range(5):
        assert run(tool, a, b)[0]["w"]["state"] == "changed"
        assert run(tool, a, b, "--values")[0]["w"]["state"] == "unreadable"
        assert run(tool, b, a)[0]["w"]["state"] == "changed"


def test_damaged_object(tool, tmp_path):
    for name in "ab":
        util.save_chunks(tmp_path / name, {}, objects={"o": 1}, files=2)
    (tmp_path / "b" / "__0_0.distcp").unlink()
    found, _ = run(tool, tmp_path / "a", tmp_path / "b")
    assert found["o"]["state"] == "unreadable"
    done = tool("diff", tmp_path / "a", tmp_path / "b", status=BAD)
    assert "%s: o: " % (tmp_path / "b") in done.stderr


def test_no_checkpoint(tool, tmp_path):
    a = save(tmp_path / "a", {"w": torch.ones(1)})
    (tmp_path / "none").mkdir()
    for pair in (a, tmp_path / "none"), (tmp_path / "absent", a):
        done = tool("diff", *pair, status=FAILED)
        assert done.stdout == "" and done.stderr
    (a / ".metadata").write_bytes(b"\x80\x04no pickle")
    assert tool("diff", a, a, status=FAILED).stdout == ""


# The command line

def test_usage(tool):
    for args in ([], ["a"], ["a", "b", "c"], ["--nonsense", "a", "b"],
                 ["a", "b", "--select"], ["-q", "--json", "a", "b"]):
        check_usage(tool, "diff", *args)
    text = tool.quiet("diff", "--help")
    for word in "--values", "--select", "unreadable", "Exit status":
        assert word in text


def test_output_that_cannot_be_written(tool, tmp_path):
    a = save(tmp_path / "a.safetensors", {"w": torch.ones(1)})
    b = save(tmp_path / "b.safetensors", {"w": torch.zeros(1)})
    check_lost_output(tool, "diff", a, a)
    check_lost_output(tool, "diff", "--json", a, b)


def test_memory(tool, tmp_path):
    """It streams: tensors of 256 MiB need a few."""
    a = save(tmp_path / "a.safetensors", {"w": torch.zeros(1 << 26)})
    if not os.environ.get("CKPTFS_SANITIZER"):
        assert tool.memory("diff", "--values", a, a) < 32 << 20
