"""Rows about the commands that need no mount."""

import functools
import json
import os
import shutil
import sys

from checkpoints import data_files
from converter import SCRIPT
from machine import Failed
from rows import (SAFETENSORS, TORCH, Result, Row, median, ratio, total_mib)


# Converting

def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def converting(bench, source, way):
    """Seconds and KiB of ckptfs export and of what PyTorch has."""
    source, target = bench.store / source, bench.store / "converted"
    size = sum(map(os.path.getsize, data_files(source)))
    found = {key: [] for key in ("export", "export KiB", "torch",
                                 "torch KiB", "torch without imports")}

    def convert(key, *command):
        try:
            usage = bench.usage(*command)
            files = target.iterdir() if target.is_dir() else [target]
            written = sum(map(os.path.getsize, files))
        finally:
            remove(target)
        # Archives have a little more around each tensor than these files.
        if written < 0.99 * size:
            raise Failed("%s has %d bytes of %d" % (target, written, size))
        found[key].append(usage.seconds)
        found[key + " KiB"].append(usage.kib)
        return usage.output

    remove(target)
    for _ in range(bench.repeats):
        convert("export", bench.program, "export", source, target,
                "--safetensors")
        output = convert("torch", sys.executable, SCRIPT, way, source, target)
        found["torch without imports"].append(
            json.loads(output.splitlines()[-1])["converting"])
    return found


@functools.lru_cache(maxsize=None)
def converting_dcp(bench):
    return converting(bench, "bf16", "torch")


@functools.lru_cache(maxsize=None)
def converting_sharded(bench):
    return converting(bench, "sharded", "hf")


def export_time(found):
    return Result(ratio(found["torch"], found["export"]), "x",
                  "%.2f s against %.2f s, %.2f s of it without imports"
                  % tuple(median(found[key]) for key in (
                      "export", "torch", "torch without imports")), found)


def export_memory(found):
    return Result(ratio(found["export KiB"], found["torch KiB"]), "",
                  "%.1f MiB against %.0f MiB"
                  % tuple(median(found[key]) / 1024 for key in (
                      "export KiB", "torch KiB")), found)


# Reading

def over_cat(bench, files, command, prefix=()):
    """Throughput of a command that reads the files, over that of cat."""
    mib = total_mib(files)
    times = {"command": [], "cat": []}
    cat = (*prefix, "sh", "-c", 'cat -- "$@" >/dev/null', "cat", *files)
    bench.usage(*cat)
    for _ in range(bench.repeats):
        times["cat"].append(bench.usage(*cat).seconds)
        times["command"].append(
            bench.usage(*prefix, bench.program, *command).seconds)
    return Result(ratio(times["cat"], times["command"]), "",
                  "%s over %s" % (bench.speed(times["command"], mib),
                                  bench.speed(times["cat"], mib)), times)


def read_row(bench, command, *sources, one_core=False):
    folders = [bench.store / source for source in sources]
    files = [file for folder in folders
             for file in data_files(folder)]
    core = min(os.sched_getaffinity(0))
    return over_cat(bench, files, (*command, *folders),
                    ("taskset", "-c", core) if one_core else ())


ROWS = (
    Row("export", "export, faster than dcp_to_torch_save", 3, "x",
        True, ("bf16",), lambda b: export_time(converting_dcp(b)), TORCH,
        ("export",)),
    Row("export-memory", "memory of export, over dcp_to_torch_save's", 0.1, "",
        False, ("bf16",), lambda b: export_memory(converting_dcp(b)), TORCH,
        ("export",)),
    Row("verify", "verify on one core, over cat", 0.8, "", True, ("bf16",),
        lambda b: read_row(b, ("verify",), "bf16", one_core=True), (),
        ("verify",)),
    Row("verify-all", "verify on all cores, over cat", None, "", True,
        ("bf16",), lambda b: read_row(b, ("verify",), "bf16"), (),
        ("verify",)),
    Row("stat", "stat on all cores, over cat", None, "", True, ("bf16",),
        lambda b: read_row(b, ("stat",), "bf16"), (), ("stat",)),
    Row("diff", "diff of two formats, all cores, over cat", None, "", True,
        ("bf16", "sharded"),
        lambda b: read_row(b, ("diff",), "bf16", "sharded"), SAFETENSORS,
        ("diff",)),
    Row("diff-values", "diff --values of them, all cores, over cat", None, "",
        True, ("bf16", "sharded"),
        lambda b: read_row(b, ("diff", "--values"), "bf16", "sharded"),
        SAFETENSORS, ("diff",)),
    Row("consolidate", "export, faster than torch's consolidation", 3, "x",
        True, ("sharded",), lambda b: export_time(converting_sharded(b)),
        SAFETENSORS, ("export",)),
    Row("consolidate-memory", "memory of export, over the consolidation's",
        0.1, "", False, ("sharded",),
        lambda b: export_memory(converting_sharded(b)), SAFETENSORS,
        ("export",)),
)
