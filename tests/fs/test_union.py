"""One mount over the stores of several ranks."""

import concurrent.futures
import errno
import json
import mmap
import os
import random
import shutil
import subprocess

import pytest
import torch

import union
import util
from conftest import DATA
from mounting import SLOW, poll

FIXTURES = DATA / "fixtures"
NEW, OLD = "torch-2.14.1/", "torch-2.6.0/"
STEPS = {
    "plain": NEW + "dtensor4", "local": NEW + "dtensor4_rank_local",
    "items": NEW + "dtensor4_file_per_item", "async": NEW + "async_dtensor2",
    "zstd": NEW + "zstd", "types": NEW + "dtypes",
    "adamw": NEW + "fsdp2_adamw", "keys": NEW + "per_rank_keys",
    "deep/er/sharded tensor": NEW + "shardedtensor2",
    "quantized": NEW + "quantized",
    "blobs": NEW + "serialization_format_safetensors",
    "threads": OLD + "dtensor4_threads3",
    "hf/sharded": NEW + "hf_sharded4_indexed",
    "hf/consolidated": NEW + "hf_consolidated",
    "hf/rank0": NEW + "hf_rank0_indexed",
}
# A change in a store is seen after two seconds; this is generous.
SOON = 6

DIRECT, MPI = "", "force_mpi"
WAYS = [(1, DIRECT, None), (2, MPI, "vader"), (3, MPI, "tcp"),
        (4, DIRECT, None), (4, MPI, "vader")]
LIGHT = [(3, MPI, "vader")]


def way_id(way):
    return "%d-%s-%s" % (way[0], way[1] or "direct", way[2] or "any")


def ways(heavy, light=()):
    """Parameters for (ranks, options, transport)."""
    return pytest.mark.parametrize("way", [
        pytest.param(w, id=way_id(w), marks=pytest.mark.heavy)
        for w in heavy if w not in light] + [
        pytest.param(w, id=way_id(w)) for w in light])


@pytest.fixture
def stores(tmp_path):
    """stores(M) -> M empty folders; the pattern for them is stores.pattern."""
    def make(count):
        made = [tmp_path / ("store%d" % rank) for rank in range(count)]
        for folder in made:
            folder.mkdir()
        return made

    make.pattern = tmp_path / "store%r"
    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every kind of checkpoint in one folder, as one rank would have it."""
    root = tmp_path_factory.mktemp("whole") / "store"
    for name, fixture in STEPS.items():
        shutil.copytree(FIXTURES / fixture, root / name)
    (root / "hf/sharded/config.json").write_text('{"model_type": "none"}')
    (root / "adamw/config.json").write_text('{"a": 1}')
    (root / "README.txt").write_text("of all of them\n")
    (root / "logs").mkdir()
    (root / "logs/empty").write_bytes(b"")
    (root / "logs/big").write_bytes(random.Random(1).randbytes(3 << 20))
    for marker in root.rglob("*.metadata"):
        os.utime(marker)
    return root


def open_mpi(way):
    return {"options": way[1], "transport": way[2]}


# Everything, at random

@pytest.mark.timeout(180)
@ways(WAYS, LIGHT)
def test_everything_on_every_mount(ckpt, job, stores, whole, rng, way):
    """The files, all views, attributes and slices, byte for byte."""
    oracle = union.Oracle(rng, ckpt(whole).path, whole)
    assert set(STEPS) <= set(oracle.steps)
    owners = union.spread(rng, whole, stores(way[0]))
    made = job(stores.pattern, way[0], **open_mpi(way))
    for mount in made.mounts:
        oracle.check(mount, owners)


@pytest.mark.timeout(120)
@ways([(4, MPI, "tcp"), (2, DIRECT, None)])
def test_hashes(job, stores, whole, rng, way):
    """What PyTorch wrote, by the hashes that were kept then."""
    union.spread(rng, whole, stores(way[0]), twice=0.5)
    made = job(stores.pattern, way[0], **open_mpi(way))
    checked = 0
    for name, fixture in STEPS.items():
        file = FIXTURES / (fixture + ".expect.json")
        for tensor, entry in json.loads(file.read_text()).items() \
                if file.exists() else ():
            for mount in made.mounts if entry != ["bytes"] else ():
                path = mount / name / "tensors" / util.encode(tensor)
                assert util.sha256(path.read_bytes()) == entry[2], path
                checked += 1
    assert checked > 100


@ways([], [(2, MPI, "vader")])
def test_checkpoint_at_the_top(ckpt, job, stores, tmp_path, rng, way):
    source = tmp_path / "one"
    shutil.copytree(FIXTURES / STEPS["adamw"], source)
    os.utime(source / ".metadata")
    oracle = union.Oracle(rng, ckpt(source).path, source)
    assert oracle.steps == ["."]
    owners = union.spread(rng, source, stores(way[0]))
    for mount in job(stores.pattern, way[0], **open_mpi(way)).mounts:
        oracle.check(mount, owners)


ODD_NAMES = ("a.b", "100%", "x/y", "w[0]", ".", "..", "", "n" * 400,
             "\u00e4\u6f22\U0001f600", "tab\there", "new\nline", " ", "-rf",
             "\u00e4" * 150 + "%/[")


@ways([], [(3, MPI, "vader")])
def test_odd_names(ckpt, job, stores, tmp_path, rng, way):
    """Of tensors, and of folders and files."""
    source = tmp_path / "one"
    made = {name: (util_tensor(rng, 6, 5), util.grid((6, 5), (3, 1)))
            for name in ODD_NAMES}
    for folder in ("a b/c%41/\u00e4\n", "%", "x[0:1]/" + "d" * 200,
                   "deep/" * 20 + "er"):
        util.save_chunks(source / folder, made, files=3)
        (source / folder / "some thing's \"name\"\\").write_text(folder)
    oracle = union.Oracle(rng, ckpt(source).path, source)
    assert len(oracle.steps) == 4
    owners = union.spread(rng, source, stores(way[0]))
    for mount in job(stores.pattern, way[0], **open_mpi(way)).mounts:
        oracle.check(mount, owners)


def util_tensor(rng, *shape):
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    return torch.randn(*shape, generator=generator)


def test_checkpoints_that_are_alike(job, stores, option):
    """Two with the same metadata, whose files lie on different ranks."""
    made = stores(2)
    tensor = step_of(made, 3, rows=96, where=[1, 1, 0], name="a")
    step_of(made, 3, rows=96, where=[1, 0, 0], name="b")
    for mount in job(stores.pattern, 2, options=option).mounts:
        for step in "ab":
            assert (mount / step / "tensors/w").read_bytes() == \
                util.tensor_bytes(tensor), step


def test_nothing_at_all(job, stores):
    """Empty stores are a mount with nothing in it, and no error."""
    stores(2)
    made = job(stores.pattern, 2, options=MPI)
    for mount in made.mounts:
        assert os.listdir(mount) == []
        util.same_errno(util.errno_of(os.stat, mount / "step"), "ENOENT")


# Rules of the union

def put(store, path, content):
    file = store / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes)
                     else content.encode())
    return file


@pytest.fixture(params=[DIRECT, MPI], ids=["direct", "force_mpi"])
def option(request):
    return request.param


def test_same_path_same_content(job, stores, option):
    """One file, and nothing to warn of."""
    one, two, three = stores(3)
    for folder in one, three:
        put(folder, "logs/same", b"x" * 70000)
    made = job(stores.pattern, 3, options=option)
    for mount in made.mounts:
        assert os.listdir(mount / "logs") == ["same"]
        assert (mount / "logs/same").read_bytes() == b"x" * 70000
    assert "differs" not in made.log()


@pytest.mark.parametrize("low, high", [
    (b"short", b"longer than that"), (b"same size A", b"same size B"),
    (b"", b"something"), (b"a" * 9000000, b"a" * 8999999 + b"b")],
    ids=["size", "content", "empty", "last byte"])
def test_same_path_that_differs(job, stores, option, low, high):
    """The lowest rank wins, and the log says so."""
    one, two, three = stores(3)
    put(one, "logs/other", "o")
    put(two, "logs/file", low)
    put(three, "logs/file", high)
    made = job(stores.pattern, 3, options=option)
    for mount in made.mounts:
        poll(lambda: (mount / "logs/file").read_bytes() == low, SOON,
             "the file of rank 1 on %s" % mount)
        assert (mount / "logs/file").stat().st_size == len(low)
    made.wait_log(r"ckptfs: warning: .*logs/file.* differs between rank 1"
                  r" and rank 2")


def test_file_and_folder_of_one_name(job, stores, option):
    one, two = stores(2)
    put(one, "a", "file")
    put(two, "a/b", "in a folder")
    put(one, "c/d", "in a folder")
    put(two, "c", "file")
    made = job(stores.pattern, 2, options=option)
    for mount in made.mounts:
        assert sorted(os.listdir(mount)) == ["a", "c"]
        assert (mount / "a").read_text() == "file"
        assert (mount / "c/d").read_text() == "in a folder"
        util.same_errno(util.errno_of(os.stat, mount / "a/b"), "ENOTDIR")
    for name in "ac":
        made.wait_log(r"ckptfs: warning: .*\b%s.* differs between rank 0 and"
                      r" rank 1" % name)


def step_of(stores, shards=2, rows=64, width=32, where=None, name="step"):
    """w, in one shard a file, file n at where[n]; .metadata at the last."""
    where = where or list(range(shards))
    tensor = torch.arange(rows * width, dtype=torch.float32).reshape(
        rows, width)
    source = stores[0].parent / ("made-" + name)
    shutil.rmtree(source, ignore_errors=True)
    util.save_chunks(source, {"w": (tensor, util.grid(tensor.shape,
                                                      (shards, 1)))},
                     files=shards)
    for index in range(shards):
        union.place(source, stores[where[index]] / name,
                    "__%d_0.distcp" % index)
    union.place(source, stores[where[-1]] / name, ".metadata")
    return tensor


@pytest.mark.parametrize("change", [-1, -3000, 1000])
def test_shard_whose_size_is_wrong(job, stores, option, change):
    """EIO for what it has, never a guess; its neighbours can be read."""
    made = stores(3)
    tensor = step_of(made, 3, rows=96)
    data = util.tensor_bytes(tensor)
    victim = made[1] / "step/__1_0.distcp"
    content = victim.read_bytes()
    victim.write_bytes(content[:change] if change < 0
                       else content[:500] + b"x" * change + content[500:])
    the_job = job(stores.pattern, 3, options=option,
                  expect_log=[r"ckptfs: error: .*"])
    for mount in the_job.mounts:
        folder = mount / "step/tensors"
        with open(folder / "w", "rb", buffering=0) as file:
            util.same_errno(util.errno_of(os.pread, file.fileno(), 64,
                                          32 * 128 + 64), "EIO")
        util.same_errno(util.errno_of((folder / "w").read_bytes), "EIO")
        assert (folder / "w[0:32]").read_bytes() == data[:32 * 128]
        assert (folder / "w[64:96]").read_bytes() == data[64 * 128:]


def test_bad_copy_on_the_lower_rank(job, stores, option):
    """The lowest rank wins even where its copy is too short: EIO."""
    made = stores(3)
    step_of(made, 2, where=[0, 2])
    content = (made[2] / "step/__1_0.distcp").read_bytes()
    put(made[1], "step/__1_0.distcp", content[:-100])
    the_job = job(stores.pattern, 3, options=option,
                  expect_log=[r"ckptfs: error: .*"])
    for mount in the_job.mounts:
        path = mount / "step/tensors/w"
        util.same_errno(util.errno_of(path.read_bytes), "EIO")
        assert len((mount / "step/__1_0.distcp").read_bytes()) == \
            len(content) - 100


def test_missing_shard(job, stores, option):
    """No rank has it: EIO for its rows, the others can be read."""
    made = stores(2)
    tensor = step_of(made, 2)
    (made[0] / "step/__0_0.distcp").unlink()
    the_job = job(stores.pattern, 2, options=option)
    data = util.tensor_bytes(tensor)
    for mount in the_job.mounts:
        folder = mount / "step/tensors"
        util.same_errno(util.errno_of((folder / "w[0:32]").read_bytes), "EIO")
        assert (folder / "w[32:]").read_bytes() == data[32 * 128:]


def test_links(job, stores, option):
    """A link of one rank into what others have."""
    made = stores(3)
    tensor = step_of(made, 3, rows=96)
    os.symlink("step", made[1] / "latest")
    os.symlink("step/__2_0.distcp", made[0] / "file")
    os.symlink("nowhere", made[2] / "dangling")
    for folder in made[:2]:
        os.symlink("step", folder / "both")
    the_job = job(stores.pattern, 3, options=option)
    for mount in the_job.mounts:
        assert {n: os.readlink(mount / n)
                for n in ("latest", "file", "dangling", "both")} == {
            "latest": "step", "file": "step/__2_0.distcp",
            "dangling": "nowhere", "both": "step"}
        assert (mount / "file").read_bytes() == \
            (made[2] / "step/__2_0.distcp").read_bytes()
        for name in "latest", "both":
            assert (mount / name / "tensors/w").read_bytes() == \
                util.tensor_bytes(tensor)
        util.same_errno(util.errno_of(os.stat, mount / "dangling"), "ENOENT")
    assert "differs" not in the_job.log()


# Stores that change

def seen(path, content, seconds=SOON):
    def now():
        found = union.read_or_errno(path)
        return found == content or (content is None and
                                    found == errno.ENOENT)
    poll(now, seconds, lambda: "%s has %r..., and not %r" % (
        path, union.read_or_errno(path), content and content[:20]))


def test_files_come_and_go(job, stores, option):
    """Every rank sees what happens in the store of another."""
    made = stores(3)
    put(made[0], "d/first", "1")
    mounts = job(stores.pattern, 3, options=option).mounts
    for mount in mounts:
        assert os.listdir(mount / "d") == ["first"]
        util.same_errno(util.errno_of(os.stat, mount / "d/new"), "ENOENT")
    put(made[1], "d/new", b"new")
    put(made[2], "e/f/g", b"deep")
    for mount in mounts:
        seen(mount / "d/new", b"new")
        seen(mount / "e/f/g", b"deep")
        poll(lambda: sorted(os.listdir(mount / "d")) == ["first", "new"],
             SOON, "the new file is listed")
    os.rename(put(made[1], "d/.new", b"replaced"), made[1] / "d/new")
    for mount in mounts:
        seen(mount / "d/new", b"replaced")
    (made[1] / "d/new").unlink()
    shutil.rmtree(made[2] / "e")
    for mount in mounts:
        seen(mount / "d/new", None)
        seen(mount / "e/f/g", None)
        poll(lambda: os.listdir(mount / "d") == ["first"] and
             os.listdir(mount) == ["d"], SOON, "what is gone is not listed")


def test_copy_on_a_lower_rank_comes_later(job, stores):
    """The file of rank 1 is hidden by a later one of rank 0."""
    made = stores(2)
    put(made[1], "f", b"one")
    the_job = job(stores.pattern, 2, options=MPI)
    for mount in the_job.mounts:
        assert (mount / "f").read_bytes() == b"one"
    put(made[0], "f", b"zero")
    for mount in the_job.mounts:
        seen(mount / "f", b"zero")
    the_job.wait_log("f.* differs between rank 0 and rank 1")
    (made[0] / "f").unlink()
    for mount in the_job.mounts:
        seen(mount / "f", b"one")


def test_checkpoint_is_replaced(job, stores, option):
    """What is open is read on, though its files have no names; what is opened
    by name is new."""
    made = stores(2)
    rows = 2048
    old = step_of(made, 2, rows=rows, width=256)
    the_job = job(stores.pattern, 2, options=option)
    opened = []
    for mount in the_job.mounts:
        file = open(mount / "step/tensors/w", "rb", buffering=0)
        assert os.pread(file.fileno(), 4096, 0) == util.tensor_bytes(
            old)[:4096]
        opened.append(file)
    source = made[0].parent / "new"
    new = old + 1
    util.save_chunks(source, {"w": (new, util.grid(new.shape, (2, 1)))},
                     files=2)
    for index, name in ((0, "__0_0.distcp"), (1, "__1_0.distcp"),
                        (1, ".metadata")):
        os.rename(source / name, made[index] / "step" / name)
    for mount in the_job.mounts:
        seen(mount / "step/tensors/w", util.tensor_bytes(new))
    for file in opened:
        assert os.pread(file.fileno(), rows * 256 * 4, 0) == \
            util.tensor_bytes(old)
        file.close()


def test_checkpoint_comes_and_goes(job, stores, option):
    """Saved while mounted: files first, views with the marker."""
    made = stores(3)
    the_job = job(stores.pattern, 3, options=option)
    tensor = step_of(made, 3, rows=96, name="step-7")
    for mount in the_job.mounts:
        seen(mount / "step-7/tensors/w", util.tensor_bytes(tensor))
    (made[2] / "step-7/.metadata").unlink()
    for mount in the_job.mounts:
        seen(mount / "step-7/tensors/w", None)
        assert (mount / "step-7/__0_0.distcp").exists()
    for folder in made:
        shutil.rmtree(folder / "step-7")
    for mount in the_job.mounts:
        poll(lambda: os.listdir(mount) == [], SOON, "nothing is left")


# Large reads

SIZE = 64 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """rows and columns, each of 4 shards, on 4 ranks; (pattern, bytes)."""
    root = tmp_path_factory.mktemp("large")
    generator = torch.Generator().manual_seed(3)
    data = torch.randint(0, 1 << 31, (SIZE // 4,), dtype=torch.int32,
                         generator=generator)
    shapes = {"rows": ((4096, 4096), (4, 1)), "columns": ((2048, 8192),
                                                          (1, 4))}
    wanted = {}
    for name, (shape, cuts) in shapes.items():
        tensor = data.reshape(shape)
        wanted[name] = tensor
        util.save_chunks(root / "made" / name,
                         {"w": (tensor, util.grid(shape, cuts))}, files=4)
    for path in union.files_below(root / "made"):
        rank = int(os.path.basename(path)[2]) if "distcp" in path else 0
        target = root / ("store%d" % rank) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(root / "made" / path, target)
    return root / "store%r", wanted


def dd(path, *flags):
    done = subprocess.run(["dd", "if=%s" % path, "bs=1M", "status=none",
                           *flags], stdout=subprocess.PIPE, check=True)
    return done.stdout


@pytest.mark.timeout(120)
@ways([(4, MPI, "vader"), (4, MPI, "tcp"), (4, DIRECT, None)])
def test_large_tensors(job, large, rng, way):
    """By dd, around the page cache, and mapped."""
    pattern, wanted = large
    the_job = job(pattern, way[0], **open_mpi(way))
    for name, tensor in wanted.items():
        data = util.tensor_bytes(tensor)
        paths = [m / name / "tensors/w" for m in the_job.mounts]
        assert dd(paths[0]) == data
        assert dd(paths[1], "iflag=direct") == data
        with open(paths[2], "rb") as file, mmap.mmap(
                file.fileno(), 0, prot=mmap.PROT_READ) as view:
            for _ in range(200):
                at = rng.randrange(SIZE - 9000)
                assert view[at:at + 9000] == data[at:at + 9000], at
            assert view[:] == data
        array = tensor.numpy()
        for _ in range(6):
            text, index = util.random_slice(rng, tensor.shape)
            path = the_job.mounts[3] / name / "tensors" / ("w[%s]" % text)
            assert path.read_bytes() == util.array_bytes(array[index]), text
    counted = [the_job.status(r)["reads"] for r in range(4)]
    if way[1] == MPI:
        # Three quarters of each whole reading came from elsewhere.
        assert counted[0]["peer"]["bytes"] >= 2 * SIZE * 3 // 4
        assert all(c["peer"]["errors"] == 0 for c in counted)
    else:
        assert all(c["peer"]["bytes"] == 0 for c in counted)


@pytest.mark.concurrent
@pytest.mark.timeout(120)
@ways([], [(4, MPI, "vader")])
def test_many_threads(job, stores, sample, rng, way):
    """At once on all mounts, each reading what lies on the others."""
    from test_concurrent import check_reads, no_faults
    made = stores(way[0])
    union.spread(rng, sample.root, made, twice=0)
    the_job = job(stores.pattern, way[0], **open_mpi(way))
    rounds = 60 // SLOW + 5
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        work = []
        for index, name in enumerate(("rows", "cols", "fine", "cube", "odd",
                                      "turned") * 4):
            step = "sub/turned" if name == "turned" else "step-1"
            path = the_job.mounts[index % 4] / step / "tensors" / name
            work.append(pool.submit(
                check_reads, path, sample.oracle[name],
                rng.randrange(1 << 30), rounds,
                os.O_DIRECT if index % 3 == 0 else 0))
        no_faults(each.result() for each in work)


def test_counters(job, stores):
    """What a mount read from a peer is what the peer has served."""
    made = stores(2)
    tensor = step_of(made, 2, rows=4096, width=256)
    the_job = job(stores.pattern, 2, options=MPI)
    # What is served to make a catalog is nobody's reading.
    for mount in the_job.mounts:
        assert union.direct(mount / "step/tensors/w[0:0]") == b""
        assert union.direct(mount / "step/tensors/w[0]")
    before = [the_job.status(r) for r in range(2)]
    data = (the_job.mounts[0] / "step/tensors/w").read_bytes()
    assert data == util.tensor_bytes(tensor)
    after = [the_job.status(r) for r in range(2)]
    half = len(data) // 2

    def more(rank, *keys):
        values = []
        for status in before[rank], after[rank]:
            for key in keys:
                status = status[key]
            values.append(status)
        return values[1] - values[0]

    assert half <= more(0, "reads", "peer", "bytes") < half + 100000
    assert more(0, "reads", "local", "bytes") >= half
    assert more(0, "reads", "peer", "requests") > 0
    assert more(1, "served", "bytes") == more(0, "reads", "peer", "bytes")
    assert more(1, "served", "requests") == \
        more(0, "reads", "peer", "requests")
    assert after[0]["reads"]["peer"]["errors"] == 0
