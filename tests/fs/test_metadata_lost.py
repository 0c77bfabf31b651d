"""The only rank that has .metadata is lost.

What one rank has found out before is not lost with it: the others know the
checkpoint from that one, whichever it is.
"""

import errno
import json
import os

import pytest

import util
from mounting import SLOW
from test_job import w
from test_union import seen, step_of, stores  # noqa: F401
from union import direct, read_or_errno

RANKS = 4
# Where the quarters of w are, for each rank that has the last, and .metadata.
WHERE = {0: [1, 2, 3, 0], 1: [0, 2, 3, 1]}
DEADLINE = 2 if SLOW == 1 else 6
LOST = {"kill": "lost", "stop": "suspect", "unmount": "left"}


def others_of(holder):
    return [rank for rank in range(RANKS) if rank != holder]


def lose(the_job, how, holder):
    if how == "kill":
        the_job.kill(holder)
    elif how == "stop":
        the_job.stop(holder)
    else:
        the_job.unmount(holder)
    for rank in others_of(holder):
        # A rank that is stopped is noticed by who asks it.
        read_or_errno(w(the_job, rank).parent.parent / "__3_0.distcp")
        the_job.wait_state(holder, rank, LOST[how])


@pytest.fixture
def known_to(job, stores):
    """known_to(ranks, holder) -> (job, bytes); only these have looked."""
    def start(lookers, holder):
        data = util.tensor_bytes(step_of(stores(RANKS), RANKS,
                                         where=WHERE[holder]))
        made = job(stores.pattern, RANKS, allow_log=[r"ckptfs: error: "],
                   options="force_mpi,deadline=%d" % DEADLINE)
        for rank in lookers:
            assert os.listdir(w(made, rank).parent) == ["w"]
        return made, data
    return start


def check(the_job, data, rank, holder):
    """What the holder does not have can be read."""
    quarter = len(data) // RANKS
    for index, owner in enumerate(WHERE[holder]):
        path = w(the_job, rank, "[%d:%d]" % (index * 16, index * 16 + 16))
        if owner == holder:
            assert read_or_errno(path) == errno.EIO
        else:
            assert direct(path) == data[index * quarter:][:quarter]


KILL = [("kill", holder, lookers) for holder, lookers in (
    (1, (0,)), (1, (1,)), (1, (2,)), (1, (3,)), (1, (0, 1)), (0, (0, 2)),
    (0, (3,)))]
OTHER = [pytest.param(how, holder, lookers, marks=pytest.mark.heavy)
         for how in ("stop", "unmount")
         for holder, lookers in ((1, (2,)), (0, (3,)))]


@pytest.mark.parametrize(
    "how, holder, lookers", KILL + OTHER,
    ids=lambda v: "".join(map(str, v)) if isinstance(v, tuple) else str(v))
def test_what_one_has_known(known_to, how, holder, lookers):
    the_job, data = known_to(lookers, holder)
    lose(the_job, how, holder)
    # The last first: it is not the one who makes catalogs.
    for rank in reversed(others_of(holder)):
        check(the_job, data, rank, holder)
        shards = json.loads(os.getxattr(w(the_job, rank),
                                        "user.ckptfs.shards"))
        assert len(shards) == RANKS


def test_data_changes_meanwhile(known_to, tmp_path):
    """A shard is replaced: the checkpoint is opened anew, without its rank."""
    the_job, data = known_to((0,), 1)
    lose(the_job, "kill", 1)
    check(the_job, data, 0, 1)
    file = tmp_path / "store2/step/__1_0.distcp"
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    os.rename(copy, file)
    for rank in others_of(1):
        # Until all have looked anew.
        seen(w(the_job, rank, "[16:32]"),
             data[len(data) // 4:len(data) // 2])
        check(the_job, data, rank, 1)
