"""What people do with a checkpoint, as a process of its own to be measured.

    converter.py torch SOURCE FILE      DCP to one file of torch.save
    converter.py hf SOURCE FOLDER       DCP's sharded safetensors to one file
    converter.py mounted FOLDER         a model from the mount's hf/
    converter.py converted SOURCE FILE  a model from DCP, by way of FILE

The last line of the output is an object of JSON: seconds without imports,
and of a model what it says: of one token, so that its weights are read.
"""

import json
import logging
import os
import sys
import time
import warnings

SCRIPT = __file__


def seconds_of(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def to_torch(source, file):
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    return {"converting": seconds_of(dcp_to_torch_save, source, file)[0]}


def to_one_safetensors(source, folder):
    from safetensors import safe_open
    from torch.distributed.checkpoint._consolidate_hf_safetensors import \
        consolidate_safetensors_files

    def consolidate():
        keys = {}
        for name in sorted(os.listdir(source)):
            with safe_open(os.path.join(source, name), "pt") as file:
                keys.update(dict.fromkeys(file.keys(), 1))
        consolidate_safetensors_files(source, folder, keys, os.cpu_count())

    os.makedirs(folder)
    return {"converting": seconds_of(consolidate)[0]}


def load_and_ask(name, **options):
    import torch
    from transformers import LlamaForCausalLM

    def load():
        model = LlamaForCausalLM.from_pretrained(
            name, dtype=torch.bfloat16, **options)
        with torch.inference_mode():
            return model(torch.tensor([[1]])).logits.double().sum().item()

    loading, said = seconds_of(load)
    return {"loading": loading, "said": said}


def mounted_model(folder):
    return load_and_ask(folder)


def converted_model(source, file):
    import torch
    import transformers
    result = to_torch(source, file)
    config = transformers.LlamaConfig.from_pretrained(source)
    seconds, state = seconds_of(
        lambda: torch.load(file, mmap=True, weights_only=True)["model"])
    result.update(load_and_ask(None, config=config, state_dict=state))
    result["loading"] += seconds
    return result


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    way = {"torch": to_torch, "hf": to_one_safetensors,
           "mounted": mounted_model, "converted": converted_model}
    print(json.dumps(way[sys.argv[1]](*sys.argv[2:])))
