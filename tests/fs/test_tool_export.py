"""ckptfs export, read back by safetensors, torch, NumPy and transformers."""

import json
import math

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import load_file

import util
from conftest import DATA
from tooling import BAD, FAILED, check_lost_output, check_usage, tool  # noqa

ROOT = DATA / "fixtures"
SUFFIX = ".expect.json"
# What safetensors has no name for.
NOT_SAFETENSORS = {"complex128", "complex32", "qint8"}


def digests(tensors):
    return {n: (str(t.dtype)[6:], list(t.shape), util.sha256(
        util.tensor_bytes(t))) for n, t in tensors.items()}


def same(a, b):
    """Names, types, shapes and bytes of two dicts of tensors."""
    assert digests(a) == digests(b)


def load(path):
    """A safetensors file, and that its header is as it must be."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    assert (8 + size) % 4096 == 0
    assert header["__metadata__"]["format"] == "pt"
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(header) - {"__metadata__"}
    return load_file(path)


def load_hf(folder):
    """A folder of --hf, by its index where it has one."""
    names = {p.name for p in folder.iterdir()}
    index = "model.safetensors.index.json"
    if index not in names:
        assert names == {"model.safetensors"}
        return load(folder / "model.safetensors")
    index = json.loads((folder / index).read_text())
    count = len(names) - 1
    assert names - {"model.safetensors.index.json"} == {
        "model-%05d-of-%05d.safetensors" % (i + 1, count)
        for i in range(count)}
    tensors = {}
    for name in sorted(set(index["weight_map"].values())):
        part = load(folder / name)
        assert part and all(index["weight_map"][k] == name for k in part)
        assert not tensors.keys() & part.keys()
        tensors.update(part)
    assert tensors.keys() == index["weight_map"].keys()
    assert index["metadata"]["total_size"] == sum(
        t.numel() * t.element_size() for t in tensors.values())
    return tensors


def files_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# Everything that PyTorch wrote

NAMES = sorted(str(path.relative_to(ROOT))[:-len(SUFFIX)]
               for path in ROOT.glob("*/*" + SUFFIX)
               if (path.parent / path.name[:-len(SUFFIX)] /
                   "__0_0.distcp").exists())
each_fixture = pytest.mark.parametrize("name", NAMES)


def expected(name):
    """Name -> dtype, shape, hash of the bytes; tensors only."""
    everything = json.loads((ROOT / (name + SUFFIX)).read_text())
    return {n: tuple(e) for n, e in everything.items() if e != ["bytes"]}


@each_fixture
@pytest.mark.parametrize("form", ["--safetensors", "--hf"])
def test_fixtures_as_safetensors(tool, tmp_path, name, form):
    want = expected(name)
    left_out = {n for n, e in want.items() if e[0] in NOT_SAFETENSORS}
    done = tool("export", ROOT / name, tmp_path / "out", form,
                status=BAD if left_out else 0)
    for key in left_out:
        assert "ckptfs export: %s: left out" % key in done.stderr
    assert len(done.stderr.splitlines()) == len(left_out)
    path = tmp_path / "out"
    if form == "--hf":
        assert files_below(path) == ["model.safetensors"]
        path = path / "model.safetensors"
    found = load(path)
    assert found.keys() == want.keys() - left_out
    for key, tensor in found.items():
        dtype, shape, digest = want[key]
        # Two of them share a byte, and PyTorch's shape counts bytes.
        assert str(tensor.dtype)[6:] == dtype
        assert list(tensor.shape) == list(shape)
        assert util.sha256(util.tensor_bytes(tensor)) == digest
    with safe_open(path, "pt") as file:
        names = json.loads(file.metadata().get("ckptfs.left_out", "[]"))
    assert set(names) == left_out


@each_fixture
def test_fixtures_as_npy(tool, tmp_path, name):
    want = expected(name)
    tool.quiet("export", ROOT / name, tmp_path / "out", "--npy")
    assert files_below(tmp_path / "out") == sorted(
        util.encode(n) + ".npy" for n in want)
    for key, (dtype, shape, digest) in want.items():
        data = (tmp_path / "out" / (util.encode(key) + ".npy")).read_bytes()
        header, offset = util.split_npy(data)
        assert util.sha256(data[offset:]) == digest
        util.check_npy(data, dtype, shape, data[offset:])
        array = np.load(tmp_path / "out" / (util.encode(key) + ".npy"))
        assert array.shape == tuple(shape)


@pytest.mark.parametrize("name", ["hf_sharded4_indexed", "hf_consolidated"])
def test_sharded_safetensors(tool, tmp_path, name):
    """PyTorch's own consolidation makes zeros of scalars: not ours."""
    want = expected("torch-2.14.1/dtensor4")
    tool("export", ROOT / "torch-2.14.1" / name, tmp_path / "out",
         "--safetensors")
    found = digests(load(tmp_path / "out"))
    assert {n: (d, list(s), h) for n, (d, s, h) in want.items()} == found


@pytest.mark.parametrize("form", ["--safetensors", "--hf", "--npy"])
@pytest.mark.parametrize("folder", ["step-1", "sub/turned"])
def test_every_cut(tool, tmp_path, sample, form, folder):
    """Rows, columns, cubes, odd sizes, transposed items, a scalar, nothing."""
    out = tmp_path / "out"
    tool.quiet("export", sample.root / folder, out, form,
               *["--max-shard-size=2MB"] * (form == "--hf"))
    want = {n: t for n, t in sample.tensors.items()
            if (n == "turned") == (folder != "step-1")}
    if form == "--npy":
        for name, tensor in want.items():
            data = (out / (name + ".npy")).read_bytes()
            util.check_npy(data, str(tensor.dtype)[6:], tensor.shape,
                           sample.oracle[name])
        assert len(files_below(out)) == len(want)
    else:
        same(load(out) if form == "--safetensors" else load_hf(out), want)


# Small things that others get wrong

def odd_state():
    return {"scalar": torch.tensor(1.5), "true": torch.tensor(True),
            "step": torch.tensor(7, dtype=torch.int64),
            "mask": torch.tensor([True, False, True]),
            "ids": torch.arange(5, dtype=torch.int32),
            "u64": torch.tensor([2 ** 63], dtype=torch.uint64),
            "none": torch.zeros(0, 3, dtype=torch.float16),
            "nan": torch.tensor([math.nan, math.inf, -0.0])}


def test_scalars_and_integers(tool, tmp_path):
    state = odd_state()
    dcp.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    tool.quiet("export", tmp_path / "dcp", tmp_path / "st", "--safetensors")
    same(load(tmp_path / "st"), state)
    tool.quiet("export", tmp_path / "st", tmp_path / "npy", "--npy")
    for name, tensor in state.items():
        array = np.load(tmp_path / "npy" / (name + ".npy"))
        same({"": torch.from_numpy(array)}, {"": tensor})


def test_there_and_back(tool, tmp_path, sample):
    """What was exported is a checkpoint itself, and exports as the same."""
    tool.quiet("export", sample.root / "step-1", tmp_path / "one", "--hf",
               "--max-shard-size", "3MiB")
    tool.quiet("export", tmp_path / "one", tmp_path / "two", "--safetensors")
    tool.quiet("export", tmp_path / "two", tmp_path / "three", "--safetensors")
    assert (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()
    same(load(tmp_path / "two"), {n: t for n, t in sample.tensors.items()
                                  if n != "turned"})


def test_names(tool, tmp_path):
    names = ["a/b", "%", "x" * 300, "\u00e9", "[0]", ".", "", "line\n",
             '"quoted"\\']
    tensors = {n: torch.full((2,), float(i)) for i, n in enumerate(names)}
    util.save_chunks(tmp_path / "c", {
        n: (t, [((0,), (2,))]) for n, t in tensors.items()})
    tool.quiet("export", tmp_path / "c", tmp_path / "st", "--safetensors")
    same(load(tmp_path / "st"), tensors)
    tool.quiet("export", tmp_path / "c", tmp_path / "hf", "--hf",
               "--max-shard-size=8")
    same(load_hf(tmp_path / "hf"), tensors)
    tool.quiet("export", tmp_path / "c", tmp_path / "npy", "--npy")
    for name, tensor in tensors.items():
        path = tmp_path / "npy" / (util.encode(name) + ".npy")
        assert np.load(path).tolist() == tensor.tolist()


def test_a_name_without_text_is_left_out(tool, tmp_path):
    """JSON has no way to write a lone surrogate; a file name does."""
    util.save_chunks(tmp_path / "c", {
        n: (torch.zeros(2), [((0,), (2,))]) for n in ("\udc80", "w")})
    done = tool("export", tmp_path / "c", tmp_path / "st", "--safetensors",
                status=BAD)
    assert "left out" in done.stderr
    assert load(tmp_path / "st").keys() == {"w"}
    tool.quiet("export", tmp_path / "c", tmp_path / "npy", "--npy")
    assert len(files_below(tmp_path / "npy")) == 2


def test_types_of_less_than_a_byte(tool, tmp_path):
    """As they are: shape and bytes, whatever is wanted of floats."""
    want = {"f4": ("F4", [2, 4], bytes(range(4))),
            "f6": ("F6_E2M3", [4, 2], bytes(range(6)))}
    header, data = {}, b""
    for name, (dtype, shape, content) in want.items():
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data + content)]}
        data += content
    text = json.dumps(header).encode()
    (tmp_path / "in").write_bytes(len(text).to_bytes(8, "little") + text + data)
    entries, _ = tool.json("ls", tmp_path / "in")
    assert {e["name"]: (e["dtype"], e["shape"]) for e in entries} == {
        n: (d, s) for n, (d, s, _) in want.items()}
    assert "[2,4]" in tool.quiet("ls", tmp_path / "in")
    tool.quiet("export", tmp_path / "in", tmp_path / "out", "--safetensors",
               "--dtype=f32")
    out = (tmp_path / "out").read_bytes()
    start = 8 + int.from_bytes(out[:8], "little")
    found = json.loads(out[8:start])
    del found["__metadata__"]
    assert {n: (e["dtype"], e["shape"], out[start:][slice(*e["data_offsets"])])
            for n, e in found.items()} == want
    tool.quiet("export", tmp_path / "in", tmp_path / "npy", "--npy")
    for name, (_, _, content) in want.items():
        array = np.load(tmp_path / "npy" / (name + ".npy"))
        assert array.dtype.itemsize == 1 and array.tobytes() == content


@pytest.mark.parametrize("form", ["--safetensors", "--hf"])
def test_nothing_but_left_out(tool, tmp_path, form):
    util.save_chunks(tmp_path / "c", {
        "c": (torch.zeros(2, dtype=torch.complex128), [((0,), (2,))])})
    tool("export", tmp_path / "c", tmp_path / "out", form, status=BAD)
    path = tmp_path / "out"
    assert load(path if form == "--safetensors" else
                path / "model.safetensors") == {}


# What is chosen

def test_select(tool, tmp_path, sample):
    source = sample.root / "step-1"

    def chosen(*args, **kwargs):
        out = tmp_path / "out.safetensors"
        out.unlink(missing_ok=True)
        tool("export", source, out, "--safetensors", *args, **kwargs)
        return load(out) if out.exists() else None

    for patterns, names in (
            (["rows"], {"rows"}), (["c*"], {"cols", "cube"}),
            (["*o*s", "tiny", "tiny"], {"rows", "cols", "tiny"})):
        args = ["--select=" + p for p in patterns]
        same(chosen(*args), {n: sample.tensors[n] for n in names})
        args = [a for p in patterns for a in ("--select", p)]
        same(chosen(*args), {n: sample.tensors[n] for n in names})
    assert chosen("--select=nothing", status=FAILED) is None


@pytest.fixture
def nested(tmp_path):
    torch.manual_seed(3)
    state = {"app": {"model": {"w": torch.randn(4, 4),
                               "in.ner": {"b": torch.randn(3)}},
                     "optim": {"w": torch.randn(4, 4)}},
             "app.model": {"decoy": torch.randn(2)},
             "app.models": torch.randn(2), "flat": torch.randn(1)}
    dcp.save(state, checkpoint_id=tmp_path / "nested", no_dist=True)
    return tmp_path / "nested", state


def test_top(tool, tmp_path, nested):
    source, state = nested
    app = state["app"]

    def below(key):
        out = tmp_path / ("top-" + key)
        tool.quiet("export", source, out, "--safetensors", "--top=" + key)
        return load(out)

    # Two dicts may join to one key; both lie below it.
    same(below("app.model"), {"w": app["model"]["w"],
                              "in.ner.b": app["model"]["in.ner"]["b"],
                              "decoy": state["app.model"]["decoy"]})
    same(below("app.optim"), {"w": app["optim"]["w"]})
    same(below("app.model.in.ner"), {"b": app["model"]["in.ner"]["b"]})
    same(below("app"), {"model.w": app["model"]["w"],
                        "model.in.ner.b": app["model"]["in.ner"]["b"],
                        "optim.w": app["optim"]["w"]})
    tool.quiet("export", source, tmp_path / "npy", "--npy", "--top=app.model",
               "--select=*.w")
    assert files_below(tmp_path / "npy") == ["w.npy"]


@pytest.mark.parametrize("key", ["flat", "app.model.in", "nothing", "ap",
                                 "app.", "app.model.w"])
def test_nothing_below(tool, tmp_path, nested, key):
    """A dot in a key is no border, and a tensor has nothing below it."""
    done = tool("export", nested[0], tmp_path / "out", "--hf", "--top", key,
                status=FAILED)
    assert "the keys are: app, app.model\n" in done.stderr
    assert not (tmp_path / "out").exists()


def test_top_of_a_flat_checkpoint(tool, tmp_path, sample):
    done = tool("export", sample.root / "step-1", tmp_path / "out", "--npy",
                "--top=rows", status=FAILED)
    assert "flat" in done.stderr


# Other types

FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn",
          "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
          "float8_e8m0fnu"]
TARGETS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def patterns(dtype):
    """Every pattern of a small type, many of a large one."""
    dtype = getattr(torch, dtype)
    size = torch.empty(0, dtype=dtype).element_size()
    if size <= 2:
        data = np.arange(1 << 8 * size, dtype="u%d" % size)
    else:
        generator = np.random.default_rng(11)
        data = generator.integers(0, 1 << 63, 200000, dtype="u8").view(
            "u%d" % size)
        near = torch.randn(200000, dtype=torch.float64).to(dtype)
        # Halves of every kind of last bit, where rounding is decided.
        data = np.concatenate([data, near.numpy().view(data.dtype),
                               near.numpy().view(data.dtype) &
                               ~data.dtype.type((1 << 8 * size - 20) - 1)])
    return torch.from_numpy(data.view("u1").copy()).view(dtype)


def same_numbers(found, want):
    """Equal bit for bit, but for the payloads of NaN."""
    assert found.dtype == want.dtype and found.shape == want.shape
    number = {4: torch.int32, 2: torch.int16}[found.element_size()]
    differ = found.view(number) != want.view(number)
    assert bool((found[differ].isnan() & want[differ].isnan()).all())


@pytest.mark.parametrize("target", TARGETS)
def test_dtype(tool, tmp_path, target):
    state = {name: patterns(name) for name in FLOATS}
    util.save_chunks(tmp_path / "c", {
        n: (t, util.grid(t.shape, (3,))) for n, t in state.items()})
    for form in "--safetensors", "--hf":
        out = tmp_path / form[2:]
        tool.quiet("export", tmp_path / "c", out, form, "--dtype", target,
                   *["--max-shard-size=400KB"] * (form == "--hf"))
        found = load(out) if form == "--safetensors" else load_hf(out)
        assert found.keys() == state.keys()
        for name, tensor in state.items():
            same_numbers(found[name], tensor.to(TARGETS[target]))
    tool.quiet("export", tmp_path / "c", tmp_path / "npy", "--npy",
               "--dtype=" + target)
    for name in state:
        data = (tmp_path / "npy" / (name + ".npy")).read_bytes()
        util.check_npy(data, str(TARGETS[target])[6:], state[name].shape,
                       util.tensor_bytes(found[name]))


@pytest.mark.parametrize("target", TARGETS)
def test_dtype_of_others(tool, tmp_path, target):
    """Integers, bool and complex stay as they are, also beside floats."""
    state = {**odd_state(), "complex": torch.randn(3, dtype=torch.complex64)}
    dcp.save(state, checkpoint_id=tmp_path / "c", no_dist=True)
    entries, _ = tool.json("export", tmp_path / "c", tmp_path / "out",
                           "--safetensors", "--dtype", target)
    want = {n: t.to(TARGETS[target]) if t.is_floating_point() else t
            for n, t in state.items()}
    found = load(tmp_path / "out")
    same_numbers(found.pop("nan"), want["nan"])
    same({**found, "nan": want["nan"]}, want)
    assert {e["name"]: e["torch_dtype"] for e in entries} == {
        n: str(t.dtype)[6:] for n, t in want.items()}


# Folders of a model

def test_files_are_filled_in_order(tool, tmp_path):
    """A new file where one would become too large; a giant is alone."""
    sizes = {"a": 40, "b": 60, "c": 1, "d": 500, "e": 99, "f": 2, "g": 0}
    tensors = {n: torch.full((s,), 7, dtype=torch.uint8)
               for n, s in sizes.items()}
    util.save_chunks(tmp_path / "c", {
        n: (t, [((0,), (len(t),))]) for n, t in reversed(tensors.items())})
    tool.quiet("export", tmp_path / "c", tmp_path / "hf", "--hf",
               "--max-shard-size=100")
    same(load_hf(tmp_path / "hf"), tensors)
    index = json.loads((tmp_path / "hf" /
                        "model.safetensors.index.json").read_text())
    files = {}
    for name, file in index["weight_map"].items():
        files.setdefault(file, set()).add(name)
    assert [files[f] for f in sorted(files)] == [
        {"a", "b"}, {"c"}, {"d"}, {"e"}, {"f", "g"}]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("limit", ["5GB", "40KB"])
@pytest.mark.parametrize("tied", [False, True], ids=["own", "tied"])
def test_from_pretrained(tool, tmp_path, limit, tied):
    import transformers
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=100,
        tie_word_embeddings=tied)
    torch.manual_seed(5)
    model = transformers.LlamaForCausalLM(config)
    dcp.save({"model": model.state_dict(), "step": 3},
             checkpoint_id=tmp_path / "dcp", no_dist=True)
    out = tmp_path / "out"
    tool.quiet("export", tmp_path / "dcp", out, "--hf", "--top=model",
               "--max-shard-size=" + limit)
    assert (len(files_below(out)) == 1) == (limit == "5GB")
    config.save_pretrained(out)
    loaded, report = transformers.LlamaForCausalLM.from_pretrained(
        out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    same(loaded.state_dict(), model.state_dict())
    half = tmp_path / "half"
    tool.quiet("export", tmp_path / "dcp", half, "--hf", "--top=model",
               "--dtype=bf16")
    config.save_pretrained(half)
    loaded = transformers.LlamaForCausalLM.from_pretrained(
        half, dtype=torch.bfloat16)
    for name, tensor in loaded.named_parameters():
        assert torch.equal(tensor, model.get_parameter(name).bfloat16())


def test_json(tool, tmp_path, sample):
    entries, summary = tool.json(
        "export", sample.root / "step-1", tmp_path / "out", "--hf",
        "--max-shard-size=3MB", "--dtype=f16", "--select=*o*")
    found = load_hf(tmp_path / "out")
    assert [e["name"] for e in entries] == sorted(found)
    assert entries == [{
        "name": n, "key": n, "dtype": util.TYPES[str(t.dtype)[6:]][1],
        "torch_dtype": str(t.dtype)[6:], "shape": list(t.shape),
        "nbytes": t.numel() * t.element_size(),
        "file": next(f for f in files_below(tmp_path / "out")
                     if f.endswith(".safetensors") and
                     n in load(tmp_path / "out" / f))}
        for n, t in sorted(found.items())]
    assert summary == {
        "tensors": len(found), "nbytes": sum(e["nbytes"] for e in entries),
        "files": len(files_below(tmp_path / "out")) - 1, "left_out": []}


def test_left_out_in_json(tool, tmp_path):
    state = {"model": {"c": torch.zeros(2, dtype=torch.complex128),
                       "w": torch.zeros(2)}}
    dcp.save(state, checkpoint_id=tmp_path / "c", no_dist=True)
    entries, summary = tool.json(
        "export", tmp_path / "c", tmp_path / "out", "--safetensors",
        "--top=model", status=BAD)
    assert [(e["name"], e["key"], e["file"]) for e in entries] == \
        [("model.w", "w", "out")]
    assert summary["left_out"] == ["model.c"]
    with safe_open(tmp_path / "out", "pt") as file:
        assert json.loads(file.metadata()["ckptfs.left_out"]) == ["c"]


def test_lost_output(tool, tmp_path, sample):
    check_lost_output(tool, "export", sample.root / "step-1",
                      tmp_path / "out", "--safetensors")
    check_lost_output(tool, "export", sample.root / "step-1",
                      tmp_path / "out", "--safetensors", "--json")


# The command line

@pytest.mark.parametrize("args", [
    [], ["a"], ["a", "b"], ["a", "b", "--hf", "--npy"],
    ["a", "b", "--safetensors", "--npy"], ["a", "b", "c", "--hf"],
    ["a", "--hf"], ["a", "b", "--hf", "--dtype=f64"],
    ["a", "b", "--hf", "--dtype"], ["a", "b", "--hf", "--top="],
    ["a", "b", "--npy", "--max-shard-size=5GB"],
    ["a", "b", "--hf", "--max-shard-size=big"],
    ["a", "b", "--hf", "--max-shard-size=-1"], ["a", "b", "--tar"],
    ["-x", "a", "b", "--hf"]], ids=" ".join)
def test_usage(tool, args):
    check_usage(tool, "export", *args)
    assert files_below(tool.folder) == []


def test_help(tool):
    text = tool.quiet("export", "--help")
    assert text.startswith("usage: ckptfs export")


def test_safetensors_and_hf_are_one(tool, tmp_path, sample):
    tool.quiet("export", sample.root / "step-1", tmp_path / "out",
               "--safetensors", "--hf")
    assert files_below(tmp_path / "out") == ["model.safetensors"]
