"""Loads tensors again and again, and says how long each time took.

    loader.py numpy             lines on stdin: FILE
    loader.py dcp CHECKPOINT    lines on stdin: CHECKPOINT NAME ROWS COLUMNS
    loader.py safetensors       lines on stdin: FILE; all its tensors, copied

All imports are done before the first line is read, and dcp.load has loaded
the small CHECKPOINT once, as its first call imports more.  The answer to
each line is the seconds that loading took.
"""

import sys
import time
import warnings

warnings.simplefilter("ignore")


def numpy_loader():
    import numpy

    def load(path):
        return numpy.fromfile(path, dtype="<f4")
    return load


def dcp_loader(warm_up):
    import torch
    import torch.distributed.checkpoint as dcp

    def load(checkpoint, name, *shape):
        state = {name: torch.empty([int(n) for n in shape])}
        dcp.load(state, checkpoint_id=checkpoint)
        return state

    load(warm_up, "w", 1024)
    return load


def safetensors_loader():
    import torch  # noqa: F401
    from safetensors import safe_open

    def load(path):
        # What get_tensor gives is mapped: nothing is read before the copy.
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key).clone() for key in file.keys()}
    return load


LOADERS = {"numpy": numpy_loader, "dcp": dcp_loader,
           "safetensors": safetensors_loader}


def main():
    loader = LOADERS[sys.argv[1]](*sys.argv[2:])
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        loaded = loader(*line.split())
        seconds = time.perf_counter() - start
        del loaded
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
