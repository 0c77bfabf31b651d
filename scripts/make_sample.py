#!/usr/bin/env python3
"""Make the sample checkpoint that scripts/quickstart.sh mounts.

    scripts/make_sample.py [FOLDER]       (default: tests/data/sample)

Two training steps of a very small language model on 4 gloo ranks: a 2 x 2
mesh, tensor parallel in one direction and FSDP in the other, weights in
bfloat16, Adam.  The state dict of the model, of the optimizer and of the
trainer goes through torch.distributed.checkpoint.save into
FOLDER/step-1000.
"""

import os
import pathlib
import shutil
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (ColwiseParallel,
                                               RowwiseParallel,
                                               parallelize_module)

RANKS = 4
VOCABULARY, WIDTH, HIDDEN = 64, 16, 24


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH)
        self.w1 = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.w2 = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x):
        return x + self.w2(torch.relu(self.w1(self.norm(x))))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleDict({"0": Block()})
        self.to(torch.bfloat16)
        self.register_buffer("freqs", 100.0 ** -torch.linspace(
            0, 1, WIDTH // 2))

    def forward(self, tokens):
        x = self.tok_embeddings(tokens)
        angles = torch.arange(tokens.shape[1])[:, None] * self.freqs
        x = x + torch.cat([angles.sin(), angles.cos()], -1).to(x.dtype)
        for layer in self.layers.values():
            x = layer(x)
        return x @ self.tok_embeddings.weight.t()


def train(rank, store, folder):
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank,
                            world_size=RANKS)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("fsdp", "tp"))
    torch.manual_seed(0)
    model = Model()
    for layer in model.layers.values():
        parallelize_module(layer, mesh["tp"], {"w1": ColwiseParallel(),
                                               "w2": RowwiseParallel()})
    fully_shard(model, mesh=mesh["fsdp"])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    losses = []
    for step in range(2):
        torch.manual_seed(step)
        tokens = torch.randint(VOCABULARY, (4, 9))
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(),
                                           tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 4))
    weights, moments = get_state_dict(model, optimizer)
    # The many small entries of param_groups are all alike; one shows them.
    group = {key: moments["param_groups"][0][key] for key in ("lr", "betas")}
    moments = {"state": moments["state"], "param_groups": [group]}
    state = {"model": weights, "optim": moments,
             "train": {"step": 1000,
                       "tokens_seen": torch.tensor(72 * RANKS),
                       "config": (VOCABULARY, WIDTH, HIDDEN),
                       "losses": losses}}
    # A name relative to here: .metadata records it.
    os.chdir(folder)
    dcp.save(state, checkpoint_id="step-1000")
    dist.destroy_process_group()


def main():
    top = pathlib.Path(__file__).resolve().parent.parent
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1
                          else top / "tests" / "data" / "sample").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "step-1000", ignore_errors=True)
    store = folder / ".gloo"
    store.unlink(missing_ok=True)
    mp.spawn(train, (str(store), str(folder)), RANKS)
    store.unlink(missing_ok=True)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print("%s: %d bytes" % (folder, size))


if __name__ == "__main__":
    main()
