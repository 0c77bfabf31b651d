# SPDX-License-Identifier: Apache-2.0
"""ckptfs stat, against NumPy on the tensors that went into the checkpoint."""

import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import util
from conftest import DATA
from tooling import BAD, FAILED, check_lost_output, check_usage, tool  # noqa

pytestmark = pytest.mark.filterwarnings("ignore")
FIGURES = ("min", "max", "mean", "std")
COUNTS = ("zeros", "nan", "inf")
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16,
          torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
          torch.float8_e5m2fnuz, torch.float8_e8m0fnu)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
            torch.uint16, torch.uint32, torch.uint64)
COMPLEX = (torch.complex64, torch.complex128, torch.complex32)


def name_of(dtype):
    return str(dtype).split(".")[1]


# The oracle

def values(tensor):
    """What counts: numbers that NumPy can work with."""
    if tensor.dtype == torch.complex32:
        tensor = tensor.to(torch.complex64)
    if tensor.dtype.is_complex:
        return np.abs(tensor.numpy().astype(np.complex128))
    if tensor.dtype.is_floating_point:
        return tensor.to(torch.float32 if tensor.dtype != torch.float64
                         else torch.float64).double().numpy()
    return tensor.numpy()


def expect(tensor):
    x = values(tensor).reshape(-1)
    if x.dtype == bool:
        x = x.astype(np.int64)
    good = x[np.isfinite(x)]
    want = dict.fromkeys(FIGURES)
    if len(good):
        wide = good.astype(np.float64)
        scale = np.abs(wide).max() or 1.0
        want = {"min": good.min().item(), "max": good.max().item(),
                "mean": math.fsum(wide / scale) / len(wide) * scale,
                "std": (wide / scale).std() * scale}
    return {**want, "zeros": int((x == 0).sum()),
            "nan": int(np.isnan(x).sum()), "inf": int(np.isinf(x).sum())}


def check(found, tensor):
    want = expect(tensor)
    name = found["name"]
    assert {key: found[key] for key in COUNTS} == \
        {key: want[key] for key in COUNTS}, name
    if want["min"] is None:
        assert [found[key] for key in FIGURES] == [None] * 4, name
        return
    if tensor.dtype.is_complex:
        assert found["min"] == pytest.approx(want["min"], rel=1e-12), name
        assert found["max"] == pytest.approx(want["max"], rel=1e-12), name
    else:
        assert (found["min"], found["max"]) == (want["min"], want["max"]), \
            name
    size = max(abs(want["min"]), abs(want["max"]))
    assert abs(found["mean"] - want["mean"]) <= 1e-13 * size, name
    # Of numbers beyond 2^53 NumPy's deviation is no better than this.
    assert abs(found["std"] - want["std"]) <= 1e-12 * size, name


def check_all(objects, summary, tensors):
    assert [o["name"] for o in objects] and \
        {o["name"] for o in objects} == set(tensors)
    assert len(objects) == len(tensors)
    for found in objects:
        tensor = tensors[found["name"]]
        dtype = name_of(tensor.dtype)
        assert found["torch_dtype"] == dtype
        assert found["dtype"] == util.TYPES[dtype][1]
        assert found["shape"] == list(tensor.shape)
        assert found["nbytes"] == tensor.numel() * tensor.element_size()
        assert found["file"] == util.encode(found["name"])
        check(found, tensor)
    assert summary == {"tensors": len(tensors), "unreadable": 0}


# Tensors

def floats(dtype, generator, shape):
    wide = torch.randn(shape, generator=generator).double() * 3
    wide[torch.rand(shape, generator=generator) < 0.1] = 0
    wide[torch.rand(shape, generator=generator) < 0.05] = math.nan
    wide[torch.rand(shape, generator=generator) < 0.05] = math.inf
    wide[torch.rand(shape, generator=generator) < 0.05] = -math.inf
    wide[torch.rand(shape, generator=generator) < 0.1] = -0.0
    if dtype == torch.float8_e8m0fnu:
        return torch.randint(0, 256, shape, generator=generator).to(
            torch.uint8).view(dtype)
    return wide.to(dtype)


def integers(dtype, generator, shape):
    size = torch.empty(0, dtype=dtype).element_size()
    data = torch.randint(0, 256, (*shape[:-1], shape[-1] * size),
                         dtype=torch.uint8, generator=generator)
    data[torch.rand(data.shape, generator=generator) < 0.5] = 0
    return data.view(dtype)


def all_types():
    generator = torch.Generator().manual_seed(8)
    made = {}
    for dtype in FLOATS:
        for shape in (23, 7), (3000, 31):
            made["%s %d" % (name_of(dtype), shape[0])] = floats(
                dtype, generator, shape)
    for dtype in INTEGERS:
        made[name_of(dtype)] = integers(dtype, generator, (400, 33))
    for dtype in COMPLEX:
        part = {torch.complex32: torch.float16,
                torch.complex64: torch.float32}.get(dtype, torch.float64)
        made[name_of(dtype)] = torch.view_as_complex(
            floats(part, generator, (40, 16, 2)))
    made["bool"] = torch.rand(999, generator=generator) < 0.25
    return made


def odd_ones():
    ones = torch.ones(70000)
    return {
        "empty": torch.zeros(0, 3), "scalar": torch.tensor(-2.5),
        "zero": torch.tensor(0.0), "negative zero": torch.tensor([-0.0]),
        "all nan": torch.full((5,), math.nan),
        "all inf": torch.tensor([math.inf, -math.inf]).bfloat16(),
        "largest": torch.tensor([1.7e308, -1.7e308, 1.7e308],
                                dtype=torch.float64),
        "smallest": torch.tensor([5e-324, 0, 5e-324], dtype=torch.float64),
        "int64": torch.tensor([-2 ** 63, 2 ** 63 - 1, 0]),
        "near": torch.tensor([2 ** 62 + 1, 2 ** 62 + 3]),
        "uint64": torch.tensor([2 ** 64 - 1, 2 ** 64 - 2],
                               dtype=torch.uint64),
        "ones": ones, "bf16 ones": ones.bfloat16(), "0.1": ones * 0.1,
        "many": torch.arange(3_000_000, dtype=torch.float32),
        "far": torch.arange(100_000) % 2 + 10 ** 9,
    }


def cut(tensor, parts):
    return util.grid(tensor.shape, [parts] * tensor.dim()) \
        if tensor.numel() else [((0,) * tensor.dim(), tuple(tensor.shape))]


@pytest.fixture(scope="module", params=[all_types, odd_ones])
def tensors(request):
    return request.param()


# Figures

def test_dcp(tool, tensors, tmp_path):
    folder = tmp_path / "step"
    util.save_chunks(folder, {n: (t, cut(t, 2)) for n, t in tensors.items()},
                     files=3, objects={"note": [1]})
    objects, summary = tool.json("stat", folder)
    check_all(objects, summary, tensors)


def test_safetensors(tool, tensors, tmp_path):
    known = {n: t for n, t in tensors.items()
             if t.dtype not in (torch.complex128, torch.complex32)}
    save_file(known, tmp_path / "all.safetensors")
    check_all(*tool.json("stat", tmp_path / "all.safetensors"), known)


def test_fixture(tool):
    folder = DATA / "fixtures" / "torch-2.6.0" / "dtensor4"
    objects, summary = tool.json("stat", folder)
    assert summary["tensors"] == len(objects) > 5
    row = next(o for o in objects if o["name"] == "row")
    assert (row["min"], row["max"], row["mean"]) == (0, 47, 23.5)


def test_types_without_values(tool, tmp_path):
    quantized = torch.quantize_per_tensor(torch.ones(4), 0.5, 0, torch.qint8)
    util.save_chunks(tmp_path / "step", {
        "f4": (torch.zeros(4, dtype=torch.uint8).view(
            torch.float4_e2m1fn_x2), [((0,), (4,))]),
        "q": (quantized, [((0,), (4,))]),
        "w": (torch.ones(2), [((0,), (2,))])},
        stored=lambda part: part)
    objects, summary = tool.json("stat", tmp_path / "step")
    assert summary == {"tensors": 3, "unreadable": 0}
    for found in objects[:2]:
        assert [found[key] for key in FIGURES + COUNTS] == [None] * 7
    assert objects[2]["mean"] == 1
    lines = tool.quiet("stat", tmp_path / "step").splitlines()
    assert lines[1].split() == ["f4", "F4", "[4]"] + ["-"] * 7
    assert lines[2].split()[3:] == ["-"] * 7


# Lines

def test_columns(tool, tmp_path):
    name = "a much longer n\u00e4me"
    tensors = {"b": torch.tensor([[1.5, -2.25], [math.nan, 0]]), name:
               torch.tensor([2 ** 63 - 1, -5]), "none": torch.zeros(0)}
    save_file(tensors, tmp_path / "x.safetensors")
    text = tool.quiet("stat", tmp_path / "x.safetensors")
    lines = text.splitlines()
    assert lines[0].split() == ["name", "dtype", "shape", *FIGURES, *COUNTS]
    assert len({len(line) for line in lines}) == 1
    found = {line[:len(name)].rstrip(): line[len(name):].split()
             for line in lines[1:]}
    deviation = "%.6g" % np.std([1.5, -2.25, 0])
    assert found["b"] == ["F32", "[2,2]", "-2.25", "1.5", "-0.25", deviation,
                          "1", "1", "0"]
    assert found[name][:4] == ["I64", "[2]", "-5", str(2 ** 63 - 1)]
    assert found["none"] == ["F32", "[0]", "-", "-", "-", "-", "0", "0", "0"]


def test_select(tool, tmp_path):
    tensors = {n: torch.ones(2) for n in ("a.w", "a.b/c", "b.w")}
    save_file(tensors, tmp_path / "x.safetensors")
    objects, summary = tool.json("stat", tmp_path / "x.safetensors", "a*")
    assert sorted(o["name"] for o in objects) == ["a.b/c", "a.w"]
    assert summary["tensors"] == 2
    done = tool("stat", tmp_path / "x.safetensors", "c*", status=BAD)
    assert done.stdout == "" and "c*: no name matches" in done.stderr


def test_odd_names(tool, tmp_path):
    """On one line, and in JSON as it is."""
    names = ["tab\tline\nescape\x1b[31m", 'quote"back\\slash', "100%"]
    save_file({n: torch.ones(1) for n in names}, tmp_path / "x.safetensors")
    text = tool.quiet("stat", tmp_path / "x.safetensors")
    assert len(text.splitlines()) == 4 and "\x1b" not in text
    assert "\t" not in text
    objects, _ = tool.json("stat", tmp_path / "x.safetensors")
    assert sorted(o["name"] for o in objects) == sorted(names)


# Threads

def on_cores(count):
    cores = sorted(os.sched_getaffinity(0))[:count]
    return lambda: os.sched_setaffinity(0, cores)


def test_output_does_not_depend_on_threads(tool, tmp_path):
    """Not in the last digit."""
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "a": torch.randn(3_000_001, generator=generator) * 1e3 + 7,
        "b": torch.randn(2_500_000, generator=generator).double(),
        "c": torch.randn(7_000_000, generator=generator).bfloat16(),
        **{"s%d" % i: torch.randn(17, generator=generator)
           for i in range(50)}}
    util.save_chunks(tmp_path / "step", {
        n: (t, cut(t, 3)) for n, t in tensors.items()}, files=2)
    args = "stat", "--json", tmp_path / "step"
    one = tool.quiet(*args, preexec_fn=on_cores(1))
    for _ in range(5):
        assert tool.quiet(*args) == one
    objects = [json.loads(line) for line in one.splitlines()]
    check_all(objects[:-1], objects[-1]["summary"], tensors)


# What cannot be read

def damage(folder, name):
    """Spoil the first item of the tensor; the file it lies in."""
    info = next(info for (key, _), info in util.items_of(folder).items()
                if key == name)
    with open(folder / info.relative_path, "r+b") as file:
        file.seek(info.offset)
        file.write(b"damage")
    os.utime(folder / ".metadata")
    return info.relative_path


def test_damage_stops_nothing_else(tool, tmp_path):
    folder = tmp_path / "step"
    tensors = {n: torch.arange(100.) for n in ("a", "b", "c")}
    util.save_chunks(folder, {n: (t, cut(t, 2)) for n, t in tensors.items()})
    file = damage(folder, "b")
    objects, summary = tool.json("stat", folder, status=BAD)
    assert summary == {"tensors": 3, "unreadable": 1}
    for found in objects:
        if found["name"] != "b":
            assert "error" not in found
            check(found, tensors["a"])
            continue
        assert [found[k] for k in FIGURES + COUNTS] == [None] * 7
        assert found["error"] == os.strerror(5)
    done = tool("stat", folder, status=BAD)
    assert done.stderr.count(": b: ") == 1
    assert "b: %s: byte " % file in done.stderr
    assert done.stdout.splitlines()[2].split()[3:] == ["-"] * 7
    assert tool.json("stat", folder, "[!b]")[1]["unreadable"] == 0


def test_missing_file(tool, tmp_path):
    folder = tmp_path / "step"
    util.save_chunks(folder, {n: (torch.ones(3), [((0,), (3,))])
                              for n in ("a", "b")}, files=2)
    (folder / "__1_0.distcp").unlink()
    objects, summary = tool.json("stat", folder, status=BAD)
    assert [o["mean"] for o in objects] == [1, None]
    assert summary["unreadable"] == 1
    assert ": b: " in tool("stat", folder, status=BAD).stderr


def test_hole(tool, tmp_path):
    util.save_chunks(tmp_path / "step", {
        "w": (torch.ones(4, 4), [((0, 0), (4, 2))])})
    objects, _ = tool.json("stat", tmp_path / "step", status=BAD)
    assert objects[0]["mean"] is None


def test_no_checkpoint(tool, tmp_path):
    (tmp_path / "none").mkdir()
    for path in tmp_path / "none", tmp_path / "absent":
        done = tool("stat", path, status=FAILED)
        assert done.stdout == "" and str(path) in done.stderr


def test_bad_metadata(tool, tmp_path, fixtures_dir):
    shutil.copytree(fixtures_dir / "torch-2.6.0" / "dtensor4",
                    tmp_path / "step")
    (tmp_path / "step" / ".metadata").write_bytes(b"\x80\x04no pickle")
    done = tool("stat", tmp_path / "step", status=BAD)
    assert done.stdout == "" and ".metadata: byte " in done.stderr


# The command line

def test_usage(tool, tmp_path):
    for args in ([], ["a", "b", "c"], ["--nonsense", "a"], ["-l", "a"]):
        check_usage(tool, "stat", *args)
    text = tool.quiet("stat", "--help")
    assert "population" in text and "absolute" in text
    save_file({"--json": torch.ones(1)}, tmp_path / "x.safetensors")
    text = tool.quiet("stat", tmp_path / "x.safetensors", "--", "--json")
    assert text.splitlines()[1].startswith("--json  F32")


def test_output_that_cannot_be_written(tool, tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "x.safetensors")
    check_lost_output(tool, "stat", tmp_path / "x.safetensors")
    check_lost_output(tool, "stat", "--json", tmp_path / "x.safetensors")


def test_memory(tool, tmp_path):
    """It streams: a tensor of 256 MiB needs a few."""
    save_file({"w": torch.zeros(1 << 26)}, tmp_path / "x.safetensors")
    if not os.environ.get("CKPTFS_SANITIZER"):
        assert tool.memory("stat", tmp_path / "x.safetensors") < 32 << 20
