"""Processes that form a gloo group and run the functions of ranks.py."""

import itertools
import multiprocessing.connection
import time

import ranks
from mounting import patience


class Group:
    """The ranks start at once; the first run() waits for them."""

    def __init__(self, world, folder):
        self.world = world
        self.folder = folder
        self.serial = itertools.count()
        self.pipes, self.ranks = [], []
        self.start()

    def start(self):
        # Each rank would import torch again: the fork server does it once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ranks"])
        meeting = str(self.folder / ("%d-%d" % (self.world,
                                                next(self.serial))))
        for rank in range(self.world):
            mine, theirs = context.Pipe()
            process = context.Process(
                target=ranks.run, args=(rank, self.world, meeting, theirs),
                daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.ranks.append(process)

    def run(self, name, *args, seconds=120):
        """Call a function on every rank; their results, in order."""
        if not self.pipes:
            self.start()
        for pipe in self.pipes:
            pipe.send((name, args))
        deadline = time.monotonic() + patience(seconds)
        results = {}
        while len(results) < self.world:
            left = [p for p in self.pipes if p not in results]
            ready = multiprocessing.connection.wait(
                left, max(0, deadline - time.monotonic()))
            for pipe in ready:
                try:
                    results[pipe] = pipe.recv()
                except (EOFError, ConnectionResetError):
                    results[pipe] = ("failed", "a rank died")
            faults = [text for state, text in results.values()
                      if state == "failed"]
            if faults or not ready:
                # The other ranks may wait for this one for ever.
                self.stop()
                raise AssertionError(faults[0] if faults else "no answer")
        return [results[pipe][1] for pipe in self.pipes]

    def stop(self):
        for pipe in self.pipes:
            pipe.close()
        for process in self.ranks:
            process.join(1)
            if process.is_alive():
                process.kill()
                process.join()
        self.pipes, self.ranks = [], []
