"""Rows about reading a checkpoint as safetensors, through the mount."""

import functools
import json
import sys
import time

from checkpoints import data_files
from converter import SCRIPT
from machine import Failed, Loader
from rows import SAFETENSORS, Result, Row, median, ratio, total_mib

TRANSFORMERS = (*SAFETENSORS, "transformers")


@functools.lru_cache(maxsize=None)
def safe_open(bench):
    """Seconds of loading all tensors."""
    plain = bench.store / "plain.safetensors"
    viewed = bench.point / "safetensors" / "model.safetensors"
    times = {key: [] for key in ("plain", "first", "second")}
    try:
        bench.command("export", bench.store / "bf16", plain, "--safetensors")
        with Loader("safetensors") as loader:
            loader.load(plain)
            for _ in range(bench.repeats):
                times["plain"].append(loader.load(plain))
                with bench.mount(bench.store / "bf16"):
                    times["first"].append(loader.load(viewed))
                    times["plain"].append(loader.load(plain))
                    times["second"].append(loader.load(viewed))
    finally:
        plain.unlink(missing_ok=True)
    return times


def safe_open_row(bench, key):
    times = safe_open(bench)
    mib = total_mib(data_files(bench.store / "bf16"))
    return Result(ratio(times["plain"], times[key]), "",
                  "%s over %s" % (bench.speed(times[key], mib),
                                  bench.speed(times["plain"], mib)), times)


def from_pretrained(bench):
    """From mounting, or converting, to what the model says of one token."""
    source, converted = bench.store / "llama", bench.store / "llama.pt"
    times = {key: [] for key in ("mount", "converted", "mount loading",
                                 "converting", "converted loading")}
    said = set()

    def convert(*words):
        answer = json.loads(bench.usage(sys.executable, SCRIPT, *words)
                            .output.splitlines()[-1])
        said.add(answer.pop("said"))
        return answer

    for _ in range(bench.repeats):
        start = time.perf_counter()
        with bench.mount(source):
            answer = convert("mounted", bench.point / "hf")
            times["mount"].append(time.perf_counter() - start)
        times["mount loading"].append(answer["loading"])
        start = time.perf_counter()
        try:
            answer = convert("converted", source, converted)
        finally:
            converted.unlink(missing_ok=True)
        times["converted"].append(time.perf_counter() - start)
        times["converting"].append(answer["converting"])
        times["converted loading"].append(answer["loading"])
    if len(said) != 1:
        raise Failed("the models differ: %s" % said)
    return Result(ratio(times["converted"], times["mount"]), "x",
                  "%.1f s against %.1f s; without imports %.2f s against "
                  "%.2f s, %.2f s of it converting" % (
                      median(times["mount"]), median(times["converted"]),
                      median(times["mount loading"]),
                      median(times["converting"]) +
                      median(times["converted loading"]),
                      median(times["converting"])), times)


ROWS = (
    Row("safe_open", "safe_open + get_tensor, cold, over a plain file",
        0.7, "", True, ("bf16",), lambda b: safe_open_row(b, "first"),
        SAFETENSORS, ("export",)),
    Row("safe_open-warm", "safe_open + get_tensor, warm, over a plain file",
        0.95, "", True, ("bf16",), lambda b: safe_open_row(b, "second"),
        SAFETENSORS, ("export",)),
    Row("pretrained", "from_pretrained, faster than converting first", 1, "x",
        True, ("llama",), from_pretrained, TRANSFORMERS),
)
