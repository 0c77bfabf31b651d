# SPDX-License-Identifier: Apache-2.0
"""The view hf/: real transformers load what PyTorch saved in shards.

Models are tiny, made here, and saved by two ranks, each tensor cut along some
axis.  A loaded model must be the one that was made, weight by weight.
"""

import concurrent.futures
import gc
import json
import os
import shutil
import subprocess
import time
import types

import pytest
import safetensors.torch
import torch

import util
from group import Group
from mounting import poll

MODEL = "model.safetensors"
SOON = 5


def round_weights(model):
    """To bfloat16, and nothing else: what is computed and not stored is of
    float32 in a model that is loaded, too."""
    for weight in model.parameters():
        weight.data = weight.data.to(torch.bfloat16)


def make_models(transformers):
    """Name -> a model with random weights."""
    made = {}

    def make(name, kind, config, **options):
        torch.manual_seed(len(made))
        config = getattr(transformers, config)(**options)
        made[name] = getattr(transformers, kind)(config).eval()
        return made[name]

    llama = dict(vocab_size=70, hidden_size=24, intermediate_size=40,
                 num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=32)
    make("llama", "LlamaForCausalLM", "LlamaConfig",
         tie_word_embeddings=False, **llama)
    make("llama_tied", "LlamaForCausalLM", "LlamaConfig",
         tie_word_embeddings=True, **llama)
    round_weights(made["llama_tied"])
    gpt2 = dict(vocab_size=61, n_positions=32, n_embd=20, n_layer=2, n_head=2)
    make("gpt2", "GPT2LMHeadModel", "GPT2Config", **gpt2)
    make("gpt2_untied", "GPT2LMHeadModel", "GPT2Config",
         tie_word_embeddings=False, **gpt2)
    round_weights(made["gpt2_untied"])
    return made


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    """.transformers, .models, and .root, where each model is saved:

    NAME/         {"model": ..., "optim": ...}, config.json beside it
    NAME-flat/    its tensors, config.json beside them
    NAME-app/     {"app": {"model": ...}}, without a config.json
    """
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1",
                      TRANSFORMERS_VERBOSITY="error")
    import transformers
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("hf")
    root = folder / "store"
    models = make_models(transformers)
    group = Group(2, tmp_path_factory.mktemp("meeting"))
    try:
        for name, model in models.items():
            weights = dict(model.state_dict())
            moments = {"state": {0: {"m": torch.ones(9, 2)}}}
            for suffix, state in (
                    ("", {"model": weights, "optim": moments, "step": 3}),
                    ("-flat", weights), ("-app", {"app": {"model": weights},
                                                  "optim": moments})):
                torch.save(state, folder / "state.pt")
                group.run("save_state", str(root / (name + suffix)),
                          str(folder / "state.pt"))
                if suffix != "-app":
                    model.config.save_pretrained(root / (name + suffix))
    finally:
        group.stop()
    return types.SimpleNamespace(transformers=transformers, models=models,
                                 root=root)


@pytest.fixture
def step(hf, ckpt):
    """step(name, options) -> the folder of a mounted checkpoint."""
    yield lambda name, options="", expect_log=(): ckpt(
        hf.root, options=options, expect_log=expect_log).path / name
    # Models that map the file, and are part of a cycle.
    gc.collect()


def check_load(hf, folder, want, **options):
    """from_pretrained finds all of it, and nothing else."""
    model, info = hf.transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, **options)
    for what, names in info.items():
        assert not names, what
    check_weights(model, want)


def check_weights(model, want, dtype=None):
    got, expected = model.state_dict(), want.state_dict()
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        tensor = tensor if dtype is None else tensor.to(dtype)
        assert got[name].dtype == tensor.dtype, name
        assert util.tensor_bytes(got[name]) == util.tensor_bytes(tensor), name
    # Tied or not, as it was.
    for each in model, want:
        each.embedding = each.get_input_embeddings().weight.data_ptr()
        each.head = each.get_output_embeddings().weight.data_ptr()
    assert (model.embedding == model.head) == (want.embedding == want.head)
    if dtype is None:
        tokens = torch.arange(20).reshape(2, 10)
        with torch.no_grad():
            # The same numbers elsewhere in memory: kernels may sum up in
            # another order.
            assert torch.allclose(model(tokens).logits, want(tokens).logits,
                                  rtol=2e-2, atol=2e-2)


NAMES = ("llama", "llama_tied", "gpt2", "gpt2_untied")


@pytest.mark.parametrize("name", NAMES)
def test_below_the_key_called_model(hf, step, name):
    folder = step(name) / "hf"
    assert {"config.json", MODEL} <= set(os.listdir(folder))
    check_load(hf, folder, hf.models[name])


@pytest.mark.parametrize("name", NAMES)
def test_flat(hf, step, name):
    check_load(hf, step(name + "-flat") / "hf", hf.models[name])


@pytest.mark.parametrize("name", NAMES)
def test_below_a_deeper_key(hf, step, name, tmp_path):
    """With the configuration in a folder of its own."""
    hf.models[name].config.save_pretrained(tmp_path / "assets")
    folder = step(name + "-app", "hf_root=app.model,hf_assets=%s"
                  % (tmp_path / "assets")) / "hf"
    check_load(hf, folder, hf.models[name])


@pytest.mark.parametrize("name", ("llama", "llama_tied"))
def test_shards_of_transformers(hf, ckpt, tmp_path, name):
    """What transformers has written in shards with an index is one file, and
    the index, which tells of files that hf/ has not, is not shown."""
    root = tmp_path / "store" / name
    hf.models[name].save_pretrained(root, max_shard_size="8KB")
    assert len(list(root.glob("*.safetensors"))) > 2
    folder = ckpt(tmp_path / "store").path / name / "hf"
    assert sorted(os.listdir(folder)) == \
        ["config.json", "generation_config.json", MODEL]
    check_load(hf, folder, hf.models[name])
    # As they are, they load, too.
    check_load(hf, folder.parent, hf.models[name])


def test_a_root_that_is_not_there(hf, step):
    mount = step("", "hf_root=app.model",
                 [r"ckptfs: warning: llama: nothing is below app\.model"])
    assert MODEL in os.listdir(mount / "llama-app" / "hf")
    assert sorted(os.listdir(mount / "llama" / "hf")) == ["config.json"]
    util.same_errno(util.errno_of(os.stat, mount / "llama" / "hf" / MODEL),
                    "ENOENT")


def test_without_a_key_called_model(hf, step):
    """Neither `model` nor flat tensors: nothing is guessed."""
    assert os.listdir(step("llama-app") / "hf") == []


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16,
                                   torch.float16))
def test_other_types(hf, step, dtype):
    """The conversion is transformers', on loading."""
    mount = step("")
    for name in "llama", "llama_tied":
        model = hf.transformers.AutoModelForCausalLM.from_pretrained(
            mount / name / "hf", dtype=dtype)
        check_weights(model, hf.models[name], dtype)


@pytest.mark.parametrize("options", (
    {"low_cpu_mem_usage": True}, {"disable_mmap": True},
    {"disable_mmap": False}, {"use_safetensors": True}, {"dtype": "auto"},
), ids=lambda o: "-".join(o))
def test_options(hf, step, options):
    check_load(hf, step("llama") / "hf", hf.models["llama"], **options)


def test_as_a_subfolder(hf, step):
    model = hf.transformers.AutoModelForCausalLM.from_pretrained(
        step("gpt2"), subfolder="hf")
    check_weights(model, hf.models["gpt2"])


def test_the_class_itself(hf, step):
    """Without the head: the base model takes its prefix off itself."""
    model = hf.transformers.LlamaModel.from_pretrained(step("llama") / "hf")
    want = hf.models["llama"].model.state_dict()
    assert model.state_dict().keys() == want.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, want[name]), name


def test_the_file(hf, step):
    """As that of the view safetensors/."""
    folder = step("llama")
    path = folder / "hf" / MODEL
    data = path.read_bytes()
    assert data == (folder / "safetensors" / MODEL).read_bytes()
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert util.xattrs(path) == {}
    for name in "optim", "x", "model.lm_head.weight", "model[0]", "":
        util.same_errno(util.errno_of(
            os.stat, folder / "hf" / (name + ".safetensors")), "ENOENT")


def test_a_copy_loads(hf, step, tmp_path):
    folder = step("llama") / "hf"
    subprocess.run(["cp", "-r", "%s/." % folder, tmp_path / "out"],
                   check=True)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(folder))
    check_load(hf, tmp_path / "out", hf.models["llama"])


@pytest.mark.concurrent
def test_threads_and_a_model(hf, step):
    """One loads the model while others map the same file, at once."""
    folder = step("llama") / "hf"
    want = hf.models["llama"].state_dict()

    def load(_):
        got = safetensors.torch.load_file(folder / MODEL)
        return got.keys() == want.keys() and all(
            torch.equal(tensor, want[name]) for name, tensor in got.items())

    with concurrent.futures.ThreadPoolExecutor(7) as pool:
        jobs = [pool.submit(load, index) for index in range(28)]
        check_load(hf, folder, hf.models["llama"])
        assert all(job.result() for job in jobs)


# The files beside the model

SHOWN = ("config.json", "generation_config.json", "tokenizer.json",
         "vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja",
         "o200k.tiktoken", "modeling_mine.py")
NOT_SHOWN = ("model.safetensors.index.json", "pytorch_model.bin.index.json",
             "README.md", "pytorch_model.bin", ".hidden.json", "LICENSE",
             "__0_1.distcp", "json")


@pytest.fixture
def small(tmp_path):
    """A checkpoint of one tensor with files beside it, in .step, and a
    folder .assets with others."""
    folder = tmp_path / "store" / "step"
    tensor = torch.arange(6.)
    util.save_chunks(folder, {"w": (tensor, [((0,), (6,))])})
    for name in SHOWN + NOT_SHOWN:
        (folder / name).write_text("stored " + name)
    (folder / "folder.json").mkdir()
    (folder / "folder.json" / "config.json").write_text("inner")
    os.symlink("config.json", folder / "link.json")
    os.symlink("/etc/hostname", folder / "out.json")
    assets = tmp_path / "assets"
    assets.mkdir()
    return types.SimpleNamespace(root=tmp_path / "store", step=folder,
                                 assets=assets, tensor=tensor)


def test_files_of_the_checkpoint(ckpt, small):
    mount = ckpt(small.root).path / "step"
    assert sorted(os.listdir(mount / "hf")) == sorted(SHOWN + (MODEL,))
    for name in SHOWN:
        path = mount / "hf" / name
        assert path.read_text() == "stored " + name
        assert path.stat().st_size == len("stored " + name)
    for name in NOT_SHOWN + ("folder.json", "out.json", "absent.json",
                             "folder.json/config.json", ".metadata",
                             "tensors.json", "../config.json.json"):
        assert not os.path.exists(mount / "hf" / name), name
    for name in NOT_SHOWN:
        assert (mount / name).read_text() == "stored " + name


def test_files_of_a_folder_of_assets(ckpt, small):
    """They come first, and what they lack the checkpoint has."""
    for name in ("config.json", "tokenizer_config.json",
                 "model.safetensors.index.json", "notes.md", MODEL,
                 "other.safetensors"):
        (small.assets / name).write_text("asset " + name)
    (small.assets / "sub.json").mkdir()
    mount = ckpt(small.root,
                 options="hf_assets=%s" % small.assets).path / "step"
    names = set(SHOWN) | {"tokenizer_config.json", MODEL}
    assert sorted(os.listdir(mount / "hf")) == sorted(names)
    for name in names - {MODEL}:
        kind = "asset" if (small.assets / name).exists() else "stored"
        assert (mount / "hf" / name).read_text() == kind + " " + name
    # The model is always that of the checkpoint.
    assert torch.equal(safetensors.torch.load_file(mount / "hf" / MODEL)["w"],
                       small.tensor)
    assert (mount / "config.json").read_text() == "stored config.json"


def test_assets_that_are_links(ckpt, small):
    """The cache of the Hub has folders of links to blobs elsewhere."""
    blobs = small.root.parent / "blobs"
    blobs.mkdir()
    (blobs / "1234").write_text("blob")
    (small.assets / "real.json").write_text("asset real.json")
    os.symlink("../blobs/1234", small.assets / "config.json")
    os.symlink(blobs / "1234", small.assets / "absolute.json")
    os.symlink("real.json", small.assets / "inside.json")
    os.symlink("nowhere", small.assets / "vocab.txt")
    hf = ckpt(small.root, options="hf_assets=%s" % small.assets
              ).path / "step" / "hf"
    assert {"config.json", "absolute.json", "inside.json",
            "real.json"} <= set(os.listdir(hf))
    for name, text in (("config.json", "blob"), ("absolute.json", "blob"),
                       ("inside.json", "asset real.json"),
                       ("real.json", "asset real.json"),
                       ("vocab.txt", "stored vocab.txt")):
        assert (hf / name).read_text() == text


def test_no_folder_of_assets(binary, small, tmp_path):
    (tmp_path / "mnt").mkdir()
    absent = tmp_path / "absent"
    done = subprocess.run(
        [binary, small.root, tmp_path / "mnt", "-f", "-o",
         "hf_assets=%s" % absent], capture_output=True, text=True,
        timeout=util.patience(20))
    assert done.returncode == 1
    assert str(absent) in done.stderr and "No such file" in done.stderr


def test_assets_in_the_background(ckpt, small, monkeypatch):
    """A relative path is that of the folder where it was started."""
    (small.assets / "config.json").write_text("asset")
    monkeypatch.chdir(small.assets.parent)
    mount = ckpt(small.root, options="hf_assets=assets", foreground=False)
    assert (mount.path / "step" / "hf" / "config.json").read_text() == "asset"


@pytest.mark.parametrize("place", ("step", "assets"))
def test_files_that_change(ckpt, small, place):
    """By rename, in place, new, and gone."""
    source = getattr(small, place)
    file = source / "config.json"
    file.write_text("first")
    hf = ckpt(small.root, options="hf_assets=%s" % small.assets
              ).path / "step" / "hf"

    def becomes(text):
        def same():
            try:
                return (hf / "config.json").read_text() == text
            except OSError as error:
                util.same_errno(error.errno, "ESTALE")
        poll(same, SOON, text)

    becomes("first")
    (source / "new").write_text("second, and longer")
    os.rename(source / "new", file)
    becomes("second, and longer")
    file.write_text("3rd")
    becomes("3rd")
    with open(file, "a") as out:
        out.write(", and more")
    becomes("3rd, and more")
    (source / "added.json").write_text("added")
    poll(lambda: "added.json" in os.listdir(hf), SOON, "a new file")
    assert (hf / "added.json").read_text() == "added"
    os.remove(source / "added.json")
    poll(lambda: not os.path.exists(hf / "added.json"), SOON, "it is gone")
    assert "added.json" not in os.listdir(hf)
    os.remove(file)
    if place == "assets":
        becomes("stored config.json")
    else:
        poll(lambda: not os.path.exists(hf / "config.json"), SOON, "gone")


def test_a_file_that_is_open_while_it_changes(ckpt, small):
    """What is renamed over stays readable, as anywhere."""
    (small.assets / "vocab.txt").write_text("old" * 5000)
    hf = ckpt(small.root, options="hf_assets=%s" % small.assets
              ).path / "step" / "hf"
    with open(hf / "vocab.txt") as file:
        assert file.read(3) == "old"
        (small.assets / "new").write_text("new" * 5000)
        os.rename(small.assets / "new", small.assets / "vocab.txt")
        time.sleep(1.2)
        try:
            assert set(file.read()) == set("old")
        except OSError as error:
            util.same_errno(error.errno, "ESTALE")


@pytest.mark.parametrize("kind", ("file", "folder", "link"))
def test_a_stored_hf_hides_the_view(ckpt, small, kind):
    stored = small.step / "hf"
    if kind == "file":
        stored.write_text("mine")
    elif kind == "folder":
        stored.mkdir()
        (stored / "config.json").write_text("mine")
    else:
        os.symlink("config.json", stored)
    mount = ckpt(small.root)
    shown = mount.path / "step" / "hf"
    assert os.listdir(mount.path / "step").count("hf") == 1
    if kind == "file":
        assert shown.read_text() == "mine"
    elif kind == "folder":
        assert os.listdir(shown) == ["config.json"]
        assert (shown / "config.json").read_text() == "mine"
    else:
        assert os.readlink(shown) == "config.json"
    mount.wait_log("a stored file hides the view hf")
    # The others are there.
    assert (mount.path / "step" / "tensors" / "w").stat().st_size == 24


def test_a_tokenizer(hf, ckpt, small):
    """One that transformers has written, from either place."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    words = {word: number for number, word in enumerate(
        ["[UNK]", "a", "checkpoint", "is", "mounted"])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = hf.transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]")
    tokenizer.chat_template = "{{ messages[0]['content'] }}!"
    shutil.rmtree(small.step)
    for place in "step", "assets":
        folder = small.root / place
        util.save_chunks(folder, {"w": (small.tensor, [((0,), (6,))])})
    tokenizer.save_pretrained(small.root / "step")
    tokenizer.save_pretrained(small.assets)
    for options, place in (("", "step"),
                           ("hf_assets=%s" % small.assets, "assets")):
        folder = ckpt(small.root, options=options).path / place / "hf"
        got = hf.transformers.AutoTokenizer.from_pretrained(folder)
        assert got("a checkpoint is not mounted")["input_ids"] == \
            [1, 2, 3, 0, 4]
        assert got.apply_chat_template([{"role": "user", "content": "hi"}],
                                       tokenize=False) == "hi!"


def test_code_beside_the_model(hf, ckpt, small):
    """A model whose code comes with it, for who trusts it."""
    (small.assets / "modeling_mine.py").write_text(
        "import torch\nfrom transformers import PreTrainedModel, "
        "PretrainedConfig\n\n\n"
        "class MineConfig(PretrainedConfig):\n    model_type = 'mine'\n\n\n"
        "class Mine(PreTrainedModel):\n    config_class = MineConfig\n\n"
        "    def __init__(self, config):\n        super().__init__(config)\n"
        "        self.w = torch.nn.Parameter(torch.zeros(6))\n"
        "        self.post_init()\n\n"
        "    def _init_weights(self, module):\n        pass\n")
    (small.assets / "config.json").write_text(json.dumps({
        "model_type": "mine", "architectures": ["Mine"],
        "auto_map": {"AutoConfig": "modeling_mine.MineConfig",
                     "AutoModel": "modeling_mine.Mine"}}))
    folder = ckpt(small.root, options="hf_assets=%s" % small.assets
                  ).path / "step" / "hf"
    model = hf.transformers.AutoModel.from_pretrained(
        folder, trust_remote_code=True)
    assert torch.equal(model.w.detach(), small.tensor)
