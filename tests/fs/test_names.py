"""Names of tensors as file names: encoding, cutting, slices, nesting."""

import errno
import json
import os
import re

import numpy as np
import pytest
import xxhash

from dcp import DTYPES, Checkpoint, random_array
from dcp.boxes import grid
from dcp.store import Store
from dcp.views import (check_npy, check_tensor, encode, index, read,
                       read_errno, xattr)

# Written down by hand, so that encode() of the tests is tested as well.
ENCODED = {
    "model.layers.0.weight": "model.layers.0.weight",
    "": "%", ".": "%2E", "..": "%2E%2E", "...": "...", ".a": ".a",
    "..a": "..a",
    "%": "%25", "%%": "%25%25", "%2F": "%252F", "%2E": "%252E",
    "%25": "%2525", "a/b": "a%2Fb", "/": "%2F", "//": "%2F%2F", "/a": "%2Fa",
    "./a": ".%2Fa", "../a": "..%2Fa", "a[0]": "a%5B0]", "[": "%5B", "]": "]",
    "a[0:1]": "a%5B0:1]", "a[0:2,:]": "a%5B0:2,:]", "w]": "w]",
    "nul\0": "nul%00", "\n": "%0A", "tab\t": "tab%09", "\x1f": "%1F",
    "\x7f": "%7F", " ": " ", " lead": " lead", "trail ": "trail ",
    "\x80": "\x80", "\x9f": "\x9f", "\u00e9": "\u00e9", "e\u0301": "e\u0301",
    "\u65e5\u672c": "\u65e5\u672c", "\U0001f600": "\U0001f600",
    "\ufffd": "\ufffd", "\uffff": "\uffff", "\U0010ffff": "\U0010ffff",
    "\u202e": "\u202e", "\ud800": "%ED%A0%80", "a\udfffb": "a%ED%BF%BFb",
    "\ud83d\ude00": "%ED%A0%BD%ED%B8%80", "back\\slash": "back\\slash",
    "quote'\"`$*?~#&;|<>": "quote'\"`$*?~#&;|<>", "-rf": "-rf", "a:b": "a:b",
    "tensors": "tensors", "npy": "npy", ".metadata": ".metadata",
    "x.npy": "x.npy", "x.pt": "x.pt", "x.json": "x.json", "~": "~",
    "Case": "Case", "case": "case", "%~": "%25~",
}


def true_name(name):
    return name.encode("utf-8", "surrogatepass")


def raw_xattr(path, name):
    return os.getxattr(path, "user.ckptfs." + name)


@pytest.fixture
def many(tmp_path):
    return Store(tmp_path / "store")


def test_the_rules(many, ckpt):
    """One file per name, listed under its encoding, true name beside it."""
    ck = many.add("step")
    for number, name in enumerate(ENCODED):
        array = np.full((2, 3), number, "<i4")
        many.tensor(ck, name, "int32", (2, 3), array=array)
    ck.write()
    for name, file in ENCODED.items():
        assert encode(name) == file, name
    mount = ckpt(many.root)
    many.check(mount)
    folder = mount.path / "step"
    for name, file in ENCODED.items():
        for path in (folder / "tensors" / file, folder / f"npy/{file}.npy"):
            assert raw_xattr(path, "name") == true_name(name), name
        check_npy(folder / f"npy/{file}[1].npy", DTYPES["int32"],
                  np.full((1, 3), list(ENCODED).index(name), "<i4"))
    lines = json.loads(read(folder / "tensors.json"))
    by_file = {line["file"]: line for line in lines}
    assert set(by_file) == set(ENCODED.values())
    for name, file in ENCODED.items():
        if not re.search("[\ud800-\udfff]", name):
            assert by_file[file]["name"] == name
        else:
            assert "\ufffd" in by_file[file]["name"]
    assert read(folder / "tensors.json").decode("utf-8").count("\n") >= \
        len(ENCODED)


def test_objects_are_named_alike(many, ckpt):
    ck = many.add("step")
    names = [*ENCODED, *LONG]
    for name in names:
        ck.object(name, {"name": len(name)})
    mount = many.mount(ckpt)
    folder = mount.path / "step/objects"
    files = {encode(name) for name in names}
    assert set(os.listdir(folder)) == {
        file + suffix for file in files for suffix in (".pt", ".json")}
    for name in names:
        for suffix in (".pt", ".json"):
            path = folder / (encode(name) + suffix)
            if len(true_name(name)) < 60_000:
                assert raw_xattr(path, "name") == true_name(name)
        assert json.loads(read(folder / (encode(name) + ".json"))) == \
            {"name": len(name)}


# Names whose encoding is near or over the 180 bytes.
LONG = [
    "a" * 179, "a" * 180, "a" * 181, "a" * 182, "a" * 255, "a" * 5000,
    "b" * 180 + "x", "b" * 180 + "y", "a" * 60_000,
    *("c" * n + "/" + "d" * 50 for n in (176, 177, 178, 179, 180)),
    *("e" * n + "\u00e9" + "f" * 50 for n in (177, 178, 179, 180)),
    *("g" * n + "\u20ac" + "h" * 50 for n in (176, 177, 178, 179)),
    *("i" * n + "\U0001f600" + "j" * 50 for n in (175, 176, 177, 178, 179)),
    *("k" * n + "\ud800" + "l" * 50 for n in (170, 171, 174, 177, 178, 179)),
    "m" * 177 + "%", "m" * 178 + "%", "m" * 179 + "%", "/" * 60, "/" * 61,
    "\0" * 100, "\u20ac" * 60, "\u20ac" * 61, "\U0001f600" * 45,
    "\U0001f600" * 46, "." * 180, "." * 181, "a" * 150 + "[0:1]" + "z" * 40,
    "layers." * 60 + "weight",
]


def test_long_names_are_cut_and_hashed(many, ckpt):
    ck = many.add("step")
    for number, name in enumerate(LONG):
        array = np.full((3, 2), number, "<i4")
        many.tensor(ck, name, "int32", (3, 2), array=array)
    mount = many.mount(ckpt)
    folder = mount.path / "step"
    files = set(os.listdir(folder / "tensors"))
    assert len(files) == len(LONG)
    for number, name in enumerate(LONG):
        file = encode(name)
        assert file in files, (name[:200], file)
        if len(file.encode()) > 180:
            head, digits = file.split("%~")
            assert len(head.encode()) <= 180
            assert digits == xxhash.xxh3_128_hexdigest(true_name(name))
        assert raw_xattr(folder / "tensors" / file, "name") == true_name(name)
    many.check(mount)
    # The plain encoding of a long name is not a second way to it.
    assert read_errno(folder / "tensors" / ("a" * 181)) == errno.ENOENT
    wrong = encode("a" * 181)[:-1] + "g"
    assert read_errno(folder / "tensors" / wrong) == errno.ENOENT
    upper = encode("a" * 181)[:-32] + encode("a" * 181)[-32:].upper()
    assert read_errno(folder / "tensors" / upper) == errno.ENOENT


def test_255_bytes_are_room_for_a_slice(many, ckpt):
    """The kernel's limit holds for the whole name, suffix and all."""
    ck = many.add("step")
    name = "n" * 400
    array = many.tensor(ck, name, "int32", (4, 4, 4))
    mount = many.mount(ckpt)
    folder = mount.path / "step"
    file = encode(name)
    assert len(file) == 214
    text = "[0000:1]"
    assert read_errno(folder / "tensors" / (file + text)) == errno.ENOENT
    part = array[1:3, 0:4, 3:4]
    text = "[1:3,0:4,3:4]"
    assert read(folder / "tensors" / (file + text)) == part.tobytes()
    check_npy(folder / "npy" / (file + text + ".npy"), DTYPES["int32"], part)
    for extra in (41, 42, 300):
        code = read_errno(folder / "tensors" / (file + "[" + "x" * extra))
        assert code in (errno.ENOENT, errno.ENAMETOOLONG)


def test_only_the_exact_spelling_is_found(many, ckpt):
    """An encoding has one spelling; others are no second name."""
    ck = many.add("step")
    for name in ("a/b", "w", ".", "A", "\u00e9"):
        many.tensor(ck, name, "int32", (2, 2))
    ck.object("o", 1)
    mount = many.mount(ckpt)
    folder = mount.path / "step"
    for file in ("a%2fb", "%61%2Fb", "%77", "w%", "w ", "W", "a%2Fb%",
                 "e\u0301", "%C3%A9", "w.npy", "%00", "%", "%2", "%2e", "w%00",
                 "w[", "w]", "o", "w%5B0]", "w%5B0:1]"):
        assert read_errno(folder / "tensors" / file) == errno.ENOENT, file
    for file in ("w", "w.npy.npy", ".npy", "w[0]", "w.npy[0]", "w[0].NPY",
                 "o.npy", "w.npy/x"):
        assert read_errno(folder / "npy" / file) in (
            errno.ENOENT, errno.ENOTDIR), file
    for file in ("o", "w.pt", "o.pt.json", "o[0].pt", "w.json", ".pt"):
        assert read_errno(folder / "objects" / file) == errno.ENOENT, file
    many.check(mount)


def test_names_that_look_like_slices(many, ckpt):
    """[ is always escaped in a name, so the two never meet."""
    ck = many.add("step")
    for name in ("w", "w[0]", "w[0:1]", "w%5B0]", "w[0][1]", "[0]", "w.npy",
                 "w[0].npy", "w.npy[0]"):
        many.tensor(ck, name, "int32", (3, 2))
    mount = many.mount(ckpt)
    many.check(mount, slices=4)
    arrays = {name: array for _, name, _, array in many.tensors}
    folder = mount.path / "step"
    assert read(folder / "tensors/w[0]") == arrays["w"][:1].tobytes()
    assert read(folder / "tensors/w%5B0]") == arrays["w[0]"].tobytes()
    assert read(folder / "tensors/w%5B0][0]") == arrays["w[0]"][:1].tobytes()
    check_npy(folder / "npy/w.npy.npy", DTYPES["int32"], arrays["w.npy"])
    check_npy(folder / "npy/w.npy[0].npy", DTYPES["int32"],
              arrays["w.npy"][:1])


# -- the grammar of slices, of a tensor of shape (10, 6, 4)

ACCEPTED = {
    "[:]": (), "[:,:]": (), "[:,:,:]": (), "[0:10]": (slice(0, 10),),
    "[0:]": (), "[:10]": (), "[3]": (slice(3, 4),), "[0]": (slice(0, 1),),
    "[9]": (slice(9, 10),), "[2:5]": (slice(2, 5),), "[2:]": (slice(2, 10),),
    "[:5]": (slice(0, 5),), "[:,1:3]": (slice(0, 10), slice(1, 3)),
    "[:,:,1]": (slice(0, 10), slice(0, 6), slice(1, 2)),
    "[7,5,3]": (slice(7, 8), slice(5, 6), slice(3, 4)),
    "[1:2,3:4]": (slice(1, 2), slice(3, 4)), "[4:4]": (slice(4, 4),),
    "[0:0]": (slice(0, 0),), "[10:10]": (slice(10, 10),), "[10:]":
    (slice(10, 10),), "[:0]": (slice(0, 0),),
    "[:,6:6,:]": (slice(0, 10), slice(6, 6)), "[9:10,5:6,3:4]":
    (slice(9, 10), slice(5, 6), slice(3, 4)),
}
REJECTED = (
    "[]", "[", "]", "[,]", "[,:]", "[:,]", "[::]", "[0:10:1]", "[::2]",
    "[0:11]", "[:11]", "[11:]", "[11:11]", "[10]", "[5:4]", "[1:0]", "[-1]",
    "[-1:]", "[:-1]", "[0:-1]", "[ 0]", "[0 ]", "[0: 1]", "[0 :1]", "[0, 1]",
    "[:,:,:,:]", "[0,0,0,0]", "[0:1,0:1,0:1,0:1]", "[01]", "[00]", "[0:01]",
    "[00:1]", "[+1]", "[0:+1]", "[1e1]", "[0x1]", "[1.0]", "[1_0]", "[a]",
    "[...]", "[None]", "[0;1]", "[0-1]", "[0..1]", "[[0]]", "[0]]", "[0][0]",
    "[0]x", "[0].npy", "[0] ", "(0)", "{0}", "[:,7]", "[:,:,5]", "[:,0:7]",
    "[\u0661]", "[18446744073709551616]", "[18446744073709551617:]",
    "[0:18446744073709551626]", "[9223372036854775808]", "[0:4294967297]",
    "[" + "0" * 40 + "]", "[" + "9" * 40 + "]", "[:%00]", "[\x01]", "[0\n]",
)


def test_grammar_of_slices(many, ckpt):
    ck = many.add("step")
    array = many.tensor(ck, "w", "float32", (10, 6, 4), grid((10, 6, 4),
                                                             (3, 2, 1)))
    mount = many.mount(ckpt)
    folder = mount.path / "step"
    for text, part in ACCEPTED.items():
        want = np.ascontiguousarray(array[part])
        path = folder / ("tensors/w" + text)
        assert read(path) == want.tobytes(), text
        assert os.stat(path).st_size == want.nbytes
        assert xattr(path, "shape") == json.dumps(
            list(want.shape), separators=(",", ":")), text
        assert xattr(path, "name") == "w"
        check_npy(folder / f"npy/w{text}.npy", DTYPES["float32"], want)
    for text in REJECTED:
        for path in (f"tensors/w{text}", f"npy/w{text}.npy"):
            with pytest.raises(OSError) as caught:
                os.stat(folder / path)
            assert caught.value.errno == errno.ENOENT, path
    assert os.listdir(folder / "tensors") == ["w"]
    assert os.listdir(folder / "npy") == ["w.npy"]


def test_slices_of_scalars_and_empty_tensors(many, ckpt):
    ck = many.add("step")
    many.tensor(ck, "scalar", "float32", ())
    many.tensor(ck, "none", "float32", (0, 4))
    mount = many.mount(ckpt)
    folder = mount.path / "step"
    for text in ("[]", "[:]", "[0]", "[0:1]", "[0:0]"):
        for path in (f"tensors/scalar{text}", f"npy/scalar{text}.npy"):
            assert read_errno(folder / path) == errno.ENOENT, path
    for text, shape in (("[:]", [0, 4]), ("[0:0]", [0, 4]), ("[:,2]", [0, 1]),
                        ("[0:,1:3]", [0, 2])):
        path = folder / ("tensors/none" + text)
        assert read(path) == b"", text
        assert json.loads(xattr(path, "shape")) == shape
        check_npy(folder / f"npy/none{text}.npy", DTYPES["float32"],
                  np.zeros(shape, "<f4"))
    for text in ("[0]", "[0:1]", "[:,4]", "[:,:,:]"):
        assert read_errno(folder / ("tensors/none" + text)) == errno.ENOENT


# -- folders


def test_checkpoints_at_any_depth(many, ckpt):
    """In folders of folders, inside another checkpoint, and MNT itself."""
    root = many.root
    places = ["", "step-1", "runs/a/b/c/step-2", "step-1/inner",
              "step-1/inner/most", "odd [0:1] %2F name/\u00e9",
              "x" * 200 + "/" + "y" * 255]
    arrays = {}
    for place in places:
        ck = Checkpoint(root / place)
        arrays[place] = ck.tensor("w", "float32", random_array(
            DTYPES["float32"], (6, 4), many.rng), grid((6, 4), (2, 2)))
        ck.object("o", place)
        ck.write()
    (root / "runs/empty").mkdir()
    (root / "runs/notes.txt").write_text("stored")
    mount = ckpt(root)
    for place, array in arrays.items():
        folder = mount.path / place
        check_tensor(folder, "w", "float32", array, many.rng)
        assert json.loads(read(folder / "objects/o.json")) == place
        for view in ("tensors", "npy", "objects", "tensors.json"):
            assert view in os.listdir(folder)
            link = os.readlink(folder / view)
            assert not link.startswith("/")
            resolved = os.path.normpath(os.path.join(folder, link))
            assert resolved == os.path.normpath(os.path.join(
                mount.path, ".ckptfs/views", place, view))
        mirror = mount.path / ".ckptfs/views" / place
        assert read(mirror / "tensors/w") == array.tobytes()
    assert ".ckptfs" not in os.listdir(mount.path)
    assert os.listdir(mount.path / "runs/empty") == []
    assert read(mount.path / "runs/notes.txt") == b"stored"
    for folder in ("runs", "runs/a", "runs/empty"):
        assert not os.path.lexists(mount.path / folder / "tensors")
    assert not os.path.exists(mount.path / ".ckptfs/views/nowhere")


def test_stored_entries_hide_views(many, ckpt):
    """A stored file or folder with the name of a view is what one sees."""
    arrays = {}
    for view in ("tensors", "npy", "objects", "tensors.json"):
        for kind in ("file", "folder"):
            name = f"{view}-{kind}"
            ck = many.add(name)
            arrays[name] = many.tensor(ck, "w", "float32", (4, 3))
            ck.object("o", 1)
            ck.write()
            if kind == "file":
                (ck.folder / view).write_bytes(b"mine")
            else:
                (ck.folder / view).mkdir()
                (ck.folder / view / "mine").write_bytes(b"mine")
    mount = ckpt(many.root)
    for name, array in arrays.items():
        view, kind = name.rsplit("-", 1)
        folder = mount.path / name
        listed = os.listdir(folder)
        assert listed.count(view) == 1
        assert not os.path.islink(folder / view)
        mine = folder / view if kind == "file" else folder / view / "mine"
        assert read(mine) == b"mine"
        for other in {"tensors", "npy", "objects", "tensors.json"} - {view}:
            assert os.path.islink(folder / other)
        if view != "tensors":
            assert read(folder / "tensors/w") == array.tobytes()
        assert re.search(rf"warning: .*{name}.*{re.escape(view)}",
                         mount.log()), name
    assert "w" in index(mount.path / "npy-file")


def test_a_stored_ckptfs_folder(many, ckpt):
    """The name .ckptfs belongs to the mount; the store's is not a danger."""
    ck = many.add("step")
    many.tensor(ck, "w", "float32", (4, 3))
    ck.write()
    (many.root / ".ckptfs/views/step").mkdir(parents=True)
    (many.root / ".ckptfs/views/step/tensors").write_bytes(b"mine")
    mount = ckpt(many.root)
    many.check(mount)
