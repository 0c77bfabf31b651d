"""soak.py for a short time, or for CKPTFS_SOAK seconds."""

import os

import pytest

import soak
import union
from mounting import SLOW
from test_union import stores  # noqa: F401

RANKS = 4
SECONDS = int(os.environ.get("CKPTFS_SOAK", "20"))


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS / SLOW + 120)
def test_soak(job, stores, sample, tmp_path, rng):
    """Right bytes only, and no daemon grows."""
    union.spread(rng, sample.root, stores(RANKS))
    mount = tmp_path / "soaked%r"
    files = [(path, (sample.root / path).read_bytes())
             for path in union.files_below(sample.root)]
    soak.soak(lambda: job(stores.pattern, RANKS, mount=mount,
                          options="force_mpi"),
              sample, files, rng, SECONDS, max(2, SECONDS // 300))
