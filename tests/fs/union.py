"""Checkpoints spread over the stores of several ranks, and what is mounted.

The oracle is a mount of all of it by one process, which other tests have
compared with PyTorch; and the plain files.
"""

import json
import os
import pathlib
import re
import shutil

import util

RANK = re.compile(rb'"rank": ?\d+')


def place(source, store, path):
    """Copy one file (or link) into the store of a rank, at the same path."""
    target = pathlib.Path(store) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(pathlib.Path(source) / path, target,
                    follow_symlinks=False)


def is_marker(name):
    return name.endswith(".metadata") or name.endswith(".index.json")


def files_below(folder):
    """Relative paths of all files, markers last, as a writer leaves them."""
    found = [os.path.relpath(os.path.join(base, name), folder)
             for base, _, names in os.walk(folder) for name in names]
    return sorted(found, key=lambda p: (is_marker(os.path.basename(p)), p))


def spread(rng, whole, stores, twice=0.15):
    """Each file to a rank at random, some to two; path -> lowest rank."""
    owners = {}
    for path in files_below(whole):
        count = 2 if len(stores) > 1 and rng.random() < twice else 1
        ranks = rng.sample(range(len(stores)), count)
        for rank in ranks:
            place(whole, stores[rank], path)
        owners[path] = min(ranks)
    for folder in stores:
        folder.mkdir(parents=True, exist_ok=True)
    return owners


def read_or_errno(path):
    """The bytes of a file, or the number of the error."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        return error.errno


def direct(path, size=1 << 20):
    """The bytes of a file from the daemon, whatever the kernel has kept."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        return b"".join(iter(lambda: os.read(fd, size), b""))
    finally:
        os.close(fd)


def attributes(path):
    """The attributes of a view file; the shards apart."""
    found = util.xattrs(path)
    shards = found.pop("user.ckptfs.shards", None)
    return found, shards and json.loads(shards)


def snapshot(step):
    """Every file of every view of one checkpoint: path -> what it has."""
    found = {}
    for view in util.VIEWS:
        if not os.path.lexists(step / view):
            continue
        if view.endswith(".json"):
            found[view] = read_or_errno(step / view)
            continue
        names = os.listdir(step / view)
        assert len(names) == len(set(names)), view
        for name in names:
            path = step / view / name
            found[view + "/" + name] = (
                path.stat().st_size, read_or_errno(path), *attributes(path))
        found[view] = sorted(names)
    return found


def slices(rng, entries, count=12):
    """Names of slices of some tensors of tensors.json, in every view."""
    entries = [e for e in entries if e["shape"]]
    found = []
    for entry in rng.sample(entries, min(count, len(entries))):
        text, _ = util.random_slice(rng, entry["shape"])
        what = "%s[%s]" % (entry["file"], text)
        found += ["tensors/" + what, "npy/" + what + ".npy",
                  "safetensors/" + what + ".safetensors",
                  "f32/" + what + ".npy"]
    return found


def brief(value):
    """What a failed comparison should show of a value."""
    return (len(value), value[:200]) if isinstance(value, bytes) else value


def check_shards(found, want, owners, step):
    """As of one process, but with the rank that has the file."""
    if want is None:
        assert found is None
        return
    assert [dict(s, rank=0) for s in found] == want
    for shard in found:
        path = os.path.normpath(os.path.join(step, shard["file"]))
        assert shard["rank"] == owners[path], (shard, owners[path])


def check_step(mount, step, want, owners):
    """The views of a checkpoint on one of the mounts."""
    got = snapshot(mount / step)
    assert got.keys() == want.keys(), got.keys() ^ want.keys()
    for path, value in want.items():
        what = "%s of %s" % (path, mount / step)
        if path == "tensors.json":
            assert RANK.sub(b"", got[path]) == RANK.sub(b"", value), what
            for entry, whole in zip(json.loads(got[path]), json.loads(value)):
                check_shards(entry["shards"], whole["shards"], owners, step)
        elif isinstance(value, tuple):
            for one, other in zip(got[path][:3], value[:3]):
                assert brief(one) == brief(other), what
                assert one == other, what
            check_shards(got[path][3], value[3], owners, step)
        else:
            assert got[path] == value, what


def check_slices(mount, step, want):
    for path, value in want.items():
        got, what = read_or_errno(mount / step / path), \
            "%s of %s" % (path, mount / step)
        assert brief(got) == brief(value), what
        assert got == value, what


def steps_of(root):
    """The folders of a mount that have views."""
    return sorted(os.path.relpath(base, root) for base, _, _ in os.walk(root)
                  if os.path.islink(os.path.join(base, "tensors.json")))


class Oracle:
    """All of a store mounted by one process, read once."""

    def __init__(self, rng, mount, store):
        self.store = store
        self.files = util.tree(store)
        self.steps = steps_of(mount)
        self.views = {s: snapshot(mount / s) for s in self.steps}
        self.slices = {}
        for step, views in self.views.items():
            names = slices(rng, json.loads(views["tensors.json"]))
            self.slices[step] = {n: read_or_errno(mount / step / n)
                                 for n in names}

    def check(self, mount, owners):
        """A mount of the union against all that is known."""
        got = util.tree(mount)
        views = {os.path.normpath(os.path.join(s, v))
                 for s in self.steps for v in util.VIEWS}
        got = {path: entry for path, entry in got.items()
               if path not in views or path in self.files}
        assert got.keys() == self.files.keys(), got.keys() ^ self.files.keys()
        for path, entry in self.files.items():
            assert got[path] == entry, path
        assert steps_of(mount) == self.steps
        for step in self.steps:
            check_step(mount, step, self.views[step], owners)
            check_slices(mount, step, self.slices[step])
