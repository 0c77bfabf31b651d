"""Completion in bash: the function is called as bash would call it."""

import os
import pathlib
import re
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "fs" / "ckptfs.bash"
COMMANDS = {"ls", "verify", "export", "diff", "stat"}

DRIVER = """
set -u
source "$1"
shift
[[ $(complete -p ckptfs) == "complete -F _ckptfs ckptfs" ]] || exit 3
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
_ckptfs ckptfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(tmp_path):
    """What is offered for the last of the words; = is a word of its own."""
    for name in ("run one", "run2"):
        (tmp_path / name).mkdir()
    (tmp_path / "rest.safetensors").write_bytes(b"")

    def offer(*words):
        done = subprocess.run(
            ["bash", "--norc", "-c", DRIVER, "bash", SCRIPT, "ckptfs",
             *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0 and done.stderr == "", done
        return set(done.stdout.split("\n")) - {""}
    return offer


def test_first_word(complete):
    assert complete("") == COMMANDS | {"run one", "run2"}
    assert complete("s") == {"stat"}
    assert complete("r") == {"run one", "run2"}
    assert complete("--") == {"--help", "--version", "--wait"}
    assert complete("--wait", "run2", "--") == {"--timeout"}


def options_of(binary, command):
    """The long options that the command's help has, as they are written."""
    text = subprocess.run([binary, command, "--help"], capture_output=True,
                          text=True, check=True).stdout
    found = re.findall(r"^ {4}(?:-\w, )?(--[a-z-]+=?)", text, re.M)
    assert "--help" in found
    return set(found)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_options_are_those_of_the_help(complete, binary, command):
    offered = complete(command, "src", "-")
    assert {o for o in offered if o.startswith("--")} == \
        options_of(binary, command)


def test_commands_are_those_of_the_help(binary):
    text = subprocess.run([binary, "--help"], capture_output=True, text=True,
                          check=True).stdout
    tail = text[text.index("The commands need no mount"):]
    assert set(re.findall(r"^ {4}(\w+) ", tail, re.M)) == COMMANDS


def test_values(complete):
    assert complete("export", "a", "b", "--dtype", "=", "") == \
        {"bf16", "f16", "f32"}
    assert complete("export", "a", "b", "--dtype", "=") == \
        {"bf16", "f16", "f32"}
    assert complete("export", "a", "b", "--dtype", "f") == {"f16", "f32"}
    assert complete("export", "a", "b", "--select", "=", "r") == set()


def test_files(complete):
    everything = {"run one", "run2", "rest.safetensors"}
    assert complete("ls", "") == everything
    assert complete("export", "run2", "re") == {"rest.safetensors"}
    assert complete("run2", "") == {"run one", "run2"}


def test_mount_options(complete):
    assert complete("run2", "m", "-o", "hf_") == {"hf_root=", "hf_assets="}
    assert complete("run2", "m", "-o", "allow_other,decoded") == \
        {"allow_other,decoded_cache="}
    assert complete("run2", "m", "-o", "hf_assets", "=", "run") == \
        {"run one", "run2"}
    assert complete("run2", "m", "-o", "ro,log", "=", "re") == \
        {"rest.safetensors"}
    assert complete("run2", "m", "-o", "log", "=", "x,hf_r") == \
        {"x,hf_root="}
    assert complete("run2", "m", "-") == {"-f", "-d", "-o"}


def test_installed(binary, tmp_path):
    prefix = os.environ.get("CKPTFS_INSTALL_PREFIX")
    if not prefix:
        prefix = tmp_path / "prefix"
        subprocess.run(["cmake", "--install", os.path.dirname(binary),
                        "--prefix", prefix], check=True, capture_output=True)
    path = "share/bash-completion/completions/ckptfs"
    assert (pathlib.Path(prefix) / path).read_text() == SCRIPT.read_text()
