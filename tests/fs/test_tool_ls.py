"""ckptfs ls, against what PyTorch reads from the same metadata."""

import fnmatch
import json
import os
import pickle
import re
import shutil
import subprocess

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

import util
from conftest import DATA
from mounting import SLOW, patience
from tooling import BAD, FAILED, check_lost_output, check_usage, tool  # noqa

ROOT = DATA / "fixtures"
# Those with .metadata alone.
FIXTURES = sorted(str(path.parent.relative_to(ROOT))
                  for path in ROOT.glob("*/*/.metadata"))
each_fixture = pytest.mark.parametrize("name", FIXTURES)


def metadata_of(folder):
    """Tensors and objects of a checkpoint, as PyTorch has them."""
    state = util.read_metadata(folder / ".metadata").state_dict_metadata
    tensors = {n: m for n, m in state.items() if hasattr(m, "chunks")}
    return tensors, set(state) - set(tensors)


def boxes(shards):
    return sorted((tuple(s["box"]["offsets"]), tuple(s["box"]["sizes"]))
                  for s in shards)


def dtype_of(tensor):
    return str(tensor.properties.dtype).removeprefix("torch.")


@each_fixture
def test_json(tool, name):
    folder = ROOT / name
    tensors, objects = metadata_of(folder)
    lost = not (folder / "__0_0.distcp").exists()
    entries, summary = tool.json("ls", folder, status=BAD if lost else 0)
    found = {e["name"]: e for e in entries}
    assert len(found) == len(entries)
    assert found.keys() == tensors.keys() | objects
    stored = util.items_of(folder)
    for key, tensor in tensors.items():
        entry = found[key]
        assert entry["shape"] == list(tensor.size)
        assert entry["torch_dtype"] == dtype_of(tensor)
        size, code, _ = util.TYPES[dtype_of(tensor)]
        assert entry["dtype"] == code
        assert entry["nbytes"] == size * tensor.size.numel()
        assert entry["file"] == util.encode(key)
        assert boxes(entry["shards"]) == sorted(
            (tuple(c.offsets), tuple(c.sizes)) for c in tensor.chunks)
        for shard in entry["shards"]:
            info = stored[key, tuple(shard["box"]["offsets"])]
            assert shard["file"] == info.relative_path
            assert shard["offset"] == info.offset
            assert shard["size"] == info.length
    for key in objects:
        assert found[key]["dtype"] == "object"
        assert found[key]["nbytes"] == stored[key, None].length
    assert summary["tensors"] == len(tensors)
    assert summary["objects"] == len(objects)
    assert summary["nbytes"] == sum(found[key]["nbytes"] for key in tensors)


@each_fixture
def test_totals_for_each_key(tool, name):
    folder = ROOT / name
    tensors, _ = metadata_of(folder)
    planned = util.read_metadata(folder / ".metadata").planner_data or {}
    count = {}
    for key in tensors:
        path = planned.get(key, ())
        top = path[0] if len(path) > 1 else None
        count[top] = count.get(top, 0) + 1
    done = tool("ls", folder, "--json", status=BAD if "2500" in name else 0)
    keys = json.loads(done.stdout.splitlines()[-1])["summary"]["keys"]
    assert {k["key"]: k["tensors"] for k in keys} == count
    tops = [k["key"] for k in keys if k["key"] is not None]
    assert tops == sorted(tops)


@each_fixture
def test_lines(tool, name):
    """Every tensor has a line, in the order of the JSON, and says the same."""
    folder = ROOT / name
    status = BAD if "2500" in name else 0
    entries, summary = tool.json("ls", folder, status=status)
    lines = tool("ls", folder, status=status).stdout.splitlines()
    for entry, line in zip(entries, lines):
        words = line.split()
        assert words[:2] == [entry["name"], entry["dtype"]]
        shards = len(entry["shards"])
        assert line.endswith("%d shard%s" % (shards, "s"[shards == 1:]))
        if "shape" in entry:
            assert words[2] == str(entry["shape"]).replace(" ", "")
    rest = lines[len(entries):]
    assert rest[0].startswith("%d tensor" % summary["tensors"])
    assert rest[-1] == "state: " + (
        "incomplete, 1 file missing" if status else "complete")


def test_columns(tool, sample):
    """Types stand below each other, and so do sizes."""
    lines = tool.quiet("ls", sample.root / "step-1").splitlines()
    lines = lines[:len(sample.tensors)]
    types = {line.index(line.split()[1]) for line in lines}
    assert len(types) == 1
    assert any("8.0 MiB" in line for line in lines)


def test_shards(tool, sample):
    folder = sample.root / "step-1"
    entries, _ = tool.json("ls", folder)
    lines = tool.quiet("ls", "-l", folder).splitlines()
    assert tool.quiet("ls", folder, "--shards").splitlines() == lines
    at = 0
    for entry in entries:
        assert lines[at].split()[0] == entry["name"]
        for shard in entry["shards"]:
            at += 1
            box, file, offset, size = lines[at].split()
            text = ",".join(
                ":" if (o, s) == (0, dim) else "%d:%d" % (o, o + s)
                for o, s, dim in zip(shard["box"]["offsets"],
                                     shard["box"]["sizes"],
                                     entry.get("shape", [shard["size"]])))
            assert box == "[%s]" % text
            assert (file, int(offset), int(size)) == \
                (shard["file"], shard["offset"], shard["size"])
        at += 1


# Patterns

NAMES = ["w", "a.b", "a.b.c", "a/b", "a[0]", "*", "a?", "-", "", "\u00e9t\u00e9",
         "model.layers.10.weight", "model.layers.1.weight", "]", "a\\b"]


@pytest.fixture
def names(tool, tmp_path):
    """The names of NAMES, or of those made, that match."""
    def match(pattern, made=NAMES):
        folder = tmp_path / "names"
        if not folder.exists():
            util.save_chunks(folder, {name: (torch.zeros(1), [((0,), (1,))])
                                      for name in made})
        args = ["ls", "--json", "--", folder, pattern]
        done = subprocess.run([tool.binary, *args], capture_output=True,
                              text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found = {line["name"] for line in lines[:-1]}
        assert lines[-1]["summary"]["tensors"] == len(found)
        assert done.returncode == (0 if found else BAD), done
        return found
    return match


@pytest.mark.parametrize("pattern, found", [
    ("*", set(NAMES)),
    ("w", {"w"}),
    ("a*b", {"a.b", "a/b", "a\\b"}),
    ("model.*.weight", {"model.layers.10.weight", "model.layers.1.weight"}),
    ("*.1.*", {"model.layers.1.weight"}),
    ("?t?", {"\u00e9t\u00e9"}),
    ("[\u00e0-\u00ef]t*", {"\u00e9t\u00e9"}),
    ("a\\[0\\]", {"a[0]"}),
    ("a[[]0]", {"a[0]"}),
    ("\\*", {"*"}),
    ("[]]", {"]"}),
    ("[!a-z]", {"*", "-", "]"}),
    ("-", {"-"}),
    ("a[", set()),
    ("", {""}),
    ("nothing", set())])
def test_patterns(names, pattern, found):
    assert names(pattern) == found


def test_random_patterns(names, rng):
    made = sorted({"".join(rng.choice("ab.[]") for _ in range(rng.randrange(7)))
                   for _ in range(300)})
    for _ in range(40):
        # Without dots: [. begins a collating symbol, where Python has a dot.
        pattern = "".join(rng.choice("ab[]!-**??")
                          for _ in range(rng.randint(1, 8)))
        want = {n for n in made if fnmatch.fnmatchcase(n, pattern)}
        assert names(pattern, made) == want, pattern


def test_patterns_are_not_slow(names):
    """Each star tries all that is left: as a tree, that would never end."""
    made = ["a" * 60000]
    assert names("*a" * 30 + "b", made) == set()
    assert names("*a" * 30, made) == set(made)


# Totals

def test_keys_are_paths(tool, tmp_path):
    """What PyTorch saved: dicts, dots in keys, and tensors in no dict."""
    state = {"model": {"a.b": torch.zeros(4), "c": {"d": torch.zeros(2, 2)}},
             "optim.x": {"y": torch.zeros(8)}, "flat.z": torch.zeros(3),
             "step": 5}
    dcp.save(state, checkpoint_id=tmp_path / "c", no_dist=True)
    entries, summary = tool.json("ls", tmp_path / "c")
    assert summary["keys"] == [
        {"key": "model", "tensors": 2, "nbytes": 32},
        {"key": "optim.x", "tensors": 1, "nbytes": 32},
        {"key": None, "tensors": 1, "nbytes": 12}]
    assert summary["tensors"] == 4 and summary["objects"] == 1
    text = tool.quiet("ls", tmp_path / "c")
    assert "    model: 2 tensors, 32 B\n" in text
    assert "    optim.x: 1 tensor, 32 B\n" in text
    _, part = tool.json("ls", tmp_path / "c", "model.*")
    assert part["keys"] == [{"key": "model", "tensors": 2, "nbytes": 32}]
    assert part["tensors"] == 2 and part["nbytes"] == 32


@pytest.mark.parametrize("folder, release", [
    ("torch-2.6.0/dtensor4", "2.6"), ("torch-2.14.1/dtensor4", "2.14")])
def test_release(tool, folder, release):
    def number(text):
        return tuple(map(int, text.split("."))) if text else None
    found = tool.json("ls", ROOT / folder)[1]["torch"]
    assert number(found["first"]) <= number(release)
    assert found["last"] is None or number(release) <= number(found["last"])
    text = tool.quiet("ls", ROOT / folder)
    assert re.search(r"^format: DCP, torch %s (to|or later)" %
                     found["first"], text, re.M)


@pytest.mark.parametrize("folder, key, text", [
    ("dtensor4", "dcp", "DCP"),
    ("dtensor4_rank_local", "dcp-local", "DCP with rank-local metadata"),
    ("hf_sharded4_indexed", "safetensors-sharded",
     "sharded safetensors of DCP")])
def test_format(tool, folder, key, text):
    folder = ROOT / "torch-2.14.1" / folder
    assert tool.json("ls", folder)[1]["format"] == key
    assert re.search("^format: %s(,|$)" % text, tool.quiet("ls", folder), re.M)


def test_safetensors(tool, tmp_path):
    """One file by its name, or the folder that it is alone in."""
    tensors = {"b": torch.zeros(3, 5, dtype=torch.bfloat16),
               "a": torch.zeros(2, dtype=torch.int8), "s": torch.tensor(1.0)}
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "model.safetensors"
    save_file(tensors, path)
    save_file({"other": torch.zeros(1)}, tmp_path / "in" / "z.safetensors")
    for source in path, tmp_path / "in":
        entries, summary = tool.json("ls", source)
        assert {e["name"]: (e["torch_dtype"], e["shape"]) for e in entries} \
            == {n: (str(t.dtype)[6:], list(t.shape))
                for n, t in tensors.items()}
        assert summary["format"] == "safetensors"
        # The neighbours of a file are no concern of it.
        assert summary["orphans"] == \
            ([] if source == path else ["z.safetensors"])
    os.symlink(path, tmp_path / "link")
    assert len(tool.json("ls", tmp_path / "link")[0]) == 3
    # By a name that nothing can be told from.
    shutil.copy(path, tmp_path / "blob")
    assert len(tool.json("ls", tmp_path / "blob")[0]) == 3


# The state

@pytest.fixture
def step(store):
    return store("torch-2.6.0/dtensor4")


def state_of(tool, folder, **kwargs):
    _, summary = tool.json("ls", folder, **kwargs)
    text = tool("ls", folder, **kwargs).stdout
    return summary, text


def test_orphans_and_leftovers(tool, step):
    (step / "__9_0.distcp").write_bytes(b"x" * 5000)
    (step / "old.safetensors").write_bytes(b"y" * 120)
    (step / "notes.txt").write_text("not a shard")
    (step / ".metadata.tmp").write_bytes(b"")
    (step / "__3.metadata.tmp").write_bytes(b"")
    (step / "__8_0.distcp").mkdir()
    summary, text = state_of(tool, step)
    assert summary["orphans"] == ["__9_0.distcp", "old.safetensors"]
    assert summary["leftovers"] == [".metadata.tmp", "__3.metadata.tmp"]
    assert "not part of it: 2 files, 5.0 KiB:\n    __9_0.distcp\n" in text
    assert "left by an interrupted save:\n    .metadata.tmp\n" in text
    assert summary["state"] == "complete"


def test_missing_and_short_files(tool, step):
    os.unlink(step / "__1_0.distcp")
    size = (step / "__2_0.distcp").stat().st_size
    os.truncate(step / "__2_0.distcp", size - 1)
    summary, text = state_of(tool, step, status=BAD)
    assert summary["missing"] == ["__1_0.distcp"]
    assert summary["too_short"] == ["__2_0.distcp"]
    assert summary["state"] == "incomplete"
    assert text.endswith("missing:\n    __1_0.distcp\n"
                         "too short:\n    __2_0.distcp\n"
                         "state: incomplete, 1 file missing, "
                         "1 file too short\n")


def test_holes(tool, tmp_path):
    folder = util.save_chunks(tmp_path / "c", {
        "w": (torch.zeros(8, 4), [((0, 0), (3, 4)), ((5, 0), (3, 4))]),
        "whole": (torch.zeros(2), [((0,), (2,))]),
        "twice": (torch.zeros(2), [((0,), (2,)), ((1,), (1,))])})
    summary, text = state_of(tool, folder, status=BAD)
    assert summary["incomplete"] == 1
    assert "state: incomplete, 1 tensor with holes\n" in text
    assert re.search("^w .*2 shards, with holes$", text, re.M)
    assert re.search("^twice .*2 shards, overlapping$", text, re.M)
    text = tool("ls", "-l", folder, "w", status=BAD).stdout
    assert "    [3:5,:]  missing\n" in text


def test_being_written(tool, step):
    os.rename(step / ".metadata", step / ".metadata.tmp")
    done = tool("ls", step, status=BAD)
    assert done.stdout == "" and "interrupted" in done.stderr
    assert ".metadata.tmp" in done.stderr


@pytest.mark.parametrize("command", ["ls", "export"])
def test_no_checkpoint(tool, step, store, command):
    rest = ["out", "--npy"] if command == "export" else []
    done = tool(command, store.root, *rest, status=FAILED)
    assert "dtensor4" in done.stderr
    os.makedirs(store.root / "deep" / "er")
    shutil.copytree(step, store.root / "deep" / "er" / "step")
    done = tool(command, store.root / "deep", *rest, status=FAILED)
    assert "er/step" in done.stderr
    shutil.rmtree(store.root / "deep")
    os.makedirs(store.root / "empty")
    done = tool(command, store.root / "empty", *rest, status=FAILED)
    assert "there is no checkpoint here" in done.stderr
    done = tool(command, store.root / "absent", *rest, status=FAILED)
    assert "No such file or directory" in done.stderr
    done = tool(command, "/dev/null", *rest, status=FAILED)
    assert len(done.stderr.splitlines()) == 1


def test_damaged(tool, step, tmp_path):
    data = bytearray((step / ".metadata").read_bytes())
    (step / ".metadata").write_bytes(data[:len(data) // 2])
    done = tool("ls", step, status=BAD)
    assert re.search(r"^ckptfs ls: .*/dtensor4/\.metadata: byte \d+: .",
                     done.stderr)
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 100)
    done = tool("ls", tmp_path / "x.safetensors", status=BAD)
    assert re.search(r"^ckptfs ls: .*/x\.safetensors: byte \d+: .",
                     done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_a_marker_that_cannot_be_read(tool, step):
    if os.geteuid() == 0:
        # Root may read anything but a folder.
        os.unlink(step / ".metadata")
        (step / ".metadata").mkdir()
    else:
        os.chmod(step / ".metadata", 0)
    done = tool("ls", step, status=FAILED)
    assert ".metadata" in done.stderr


# What a terminal gets

EVIL = ["\x1b[2Jx", "new\nline", "\x7f", "\u009b31m", "\u202etxt.exe",
        "\u2028", "tab\t", "\udcff"]


def test_names_do_nothing_to_a_terminal(tool, tmp_path):
    folder = util.save_chunks(
        tmp_path / "evil", {n: (torch.zeros(1), [((0,), (1,))])
                            for n in EVIL}, objects={"o\x1b[m": 1})
    for args in (), ("-l",):
        text = tool.quiet("ls", folder, *args)
        assert set(re.findall(r"[^ -~]", text)) == {"\n"}
        assert "?[2Jx" in text
    entries, _ = tool.json("ls", folder)
    got = [e["name"] for e in entries]
    # A lone surrogate has no text; JSON has the character for that.
    assert got[:-2] == EVIL[:-1] and set(got[-2]) == {"\ufffd"}


def test_long_names(tool, tmp_path):
    made = ["n" * 5000, "x"]
    folder = util.save_chunks(tmp_path / "long", {
        n: (torch.zeros(1), [((0,), (1,))]) for n in made})
    lines = tool.quiet("ls", folder).splitlines()
    assert [line.split()[0] for line in lines[:2]] == made
    assert len(lines[1]) < 200


# The command line

@pytest.mark.parametrize("args", [
    [], ["a", "b", "c"], ["--nonsense", "a"], ["-x", "a"], ["-l"],
    ["--json=3", "a"], ["--decoded-cache=lots", "a"],
    ["--decoded-cache=", "a"], ["--decoded-cache=99999999999999999999", "a"],
    ["--decoded-cache=1Q", "a"], ["--decoded-cache=16777216T", "a"]],
    ids=" ".join)
def test_usage(tool, args):
    check_usage(tool, "ls", *args)


def test_help(tool, binary):
    text = tool.quiet("ls", "--help")
    assert text.startswith("usage: ckptfs ls")
    assert tool.quiet("ls", "anything", "-h") == text
    assert "--help" in text and "--decoded-cache=SIZE" in text
    whole = tool.quiet("--help")
    assert re.search("^    ls  ", whole, re.M)
    # Behind the dashes, it is a name.
    assert "usage" not in tool("ls", "--", "-h", status=FAILED).stdout


def test_sizes_are_understood(tool, step):
    for size in "0", "512", "512B", "4K", "4KB", "4KiB", "2G", "1TB":
        tool.quiet("ls", "--decoded-cache=" + size, step)


def test_order_of_arguments(tool, step):
    want = tool.quiet("ls", "-l", step, "row")
    assert tool.quiet("ls", step, "-l", "row") == want
    assert tool.quiet("ls", step, "row", "-l") == want
    assert tool.quiet("ls", "-l", "--", step, "row") == want


def test_a_folder_called_ls(ckpt, step, tmp_path, monkeypatch):
    """./ls is mounted; and only the first argument is a command."""
    shutil.copytree(step, tmp_path / "ls")
    monkeypatch.chdir(tmp_path)
    mount = ckpt("./ls")
    assert (mount.path / "tensors" / "row").stat().st_size == 192


def test_options_of_the_mount(tool, step, tmp_path):
    """Sizes of a mount are spelled as those of a command."""
    (tmp_path / "mnt").mkdir()
    done = tool(step, tmp_path / "mnt", "-o", "decoded_cache=lots",
                status=FAILED)
    assert "decoded_cache" in done.stderr


def test_lost_output(tool, step):
    check_lost_output(tool, "ls", step)
    check_lost_output(tool, "ls", "--json", step)
    check_lost_output(tool, "ls", "--help")


def test_killed_reader(tool):
    """It ends, and not with success, when nobody reads any more."""
    process = tool.start("ls", "--json",
                         ROOT / "torch-2.14.1" / "metadata_2500keys")
    # More than a pipe holds is still to come.
    assert process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=patience(30)) == FAILED
    assert b"Broken pipe" in error


def test_many(tool, tmp_path):
    """Constant work for a tensor: no file is touched for it."""
    from torch.distributed.checkpoint import metadata as md
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    count = 20000
    whole = md.Metadata({}, {}, {})
    for index in range(count):
        name = "layers.%d.w" % index
        chunk = md.ChunkStorageMetadata(torch.Size([0]), torch.Size([4]))
        whole.state_dict_metadata[name] = md.TensorStorageMetadata(
            md.TensorProperties(), torch.Size([4]), [chunk])
        whole.storage_data[md.MetadataIndex(name, torch.Size([0]))] = \
            _StorageInfo("__0_0.distcp", index * 1000, 1000)
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / ".metadata").write_bytes(pickle.dumps(whole))
    with open(folder / "__0_0.distcp", "wb") as file:
        file.truncate(count * 1000)
    trace = tmp_path / "trace"
    # Sanitizers do not run under it.
    if shutil.which("strace") and SLOW == 1:
        done = subprocess.run(["strace", "-f", "-c", "-o", trace, tool.binary,
                               "ls", folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        calls = sum(int(line.split()[3]) for line in
                    trace.read_text().splitlines()[2:-2])
        assert calls < count / 4
    entries, summary = tool.json("ls", folder)
    assert len(entries) == summary["tensors"] == count
