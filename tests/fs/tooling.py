"""Running the commands that need no mount."""

import json
import os
import resource
import subprocess
import sys

import pytest

from mounting import patience

GOOD, BAD, FAILED = 0, 1, 2


class Tool:
    """ckptfs with a command: its status, what it wrote, and its JSON."""

    def __init__(self, binary, folder):
        self.binary = binary
        self.folder = folder

    def __call__(self, *args, status=GOOD, **kwargs):
        """Run it to its end; nothing but `status` may come out."""
        kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                  "stdin": subprocess.DEVNULL, "cwd": self.folder,
                  "timeout": patience(60), **kwargs}
        done = subprocess.run([self.binary, *map(str, args)], text=True,
                              errors="surrogateescape", **kwargs)
        assert done.returncode == status, (args, done)
        assert "Sanitizer" not in (done.stderr or ""), done.stderr
        return done

    def quiet(self, *args, **kwargs):
        """Likewise, and it had nothing to complain about."""
        done = self(*args, **kwargs)
        assert done.stderr == ""
        return done.stdout

    def json(self, command, *args, **kwargs):
        """The objects before the last, and the summary."""
        text = self(command, "--json", *args, **kwargs).stdout
        assert text.endswith("\n")
        lines = text[:-1].split("\n")
        objects = [json.loads(line) for line in lines]
        assert objects and set(objects[-1]) == {"summary"}, lines
        assert all("summary" not in entry for entry in objects[:-1])
        return objects[:-1], objects[-1]["summary"]

    def start(self, *args, **kwargs):
        kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                  "stdin": subprocess.DEVNULL, "cwd": self.folder, **kwargs}
        return subprocess.Popen([self.binary, *map(str, args)], **kwargs)

    def memory(self, *args):
        """Bytes that a run had in memory at most.

        A process inherits the peak of who started it, so that has to be
        something small.
        """
        script = ("import os, subprocess, sys;"
                  "p = subprocess.Popen(sys.argv[1:], stdout=2);"
                  "_, status, usage = os.wait4(p.pid, 0);"
                  "print(status, usage.ru_maxrss)")
        done = subprocess.run([sys.executable, "-S", "-c", script,
                               self.binary, *map(str, args)],
                              capture_output=True, text=True, check=True)
        status, size = map(int, done.stdout.split())
        assert status == 0, done.stderr
        return size * 1024


@pytest.fixture
def tool(binary, tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    return Tool(binary, folder)


def check_usage(tool, *args):
    """The command line is refused: briefly, and with a hint."""
    done = tool(*args, status=FAILED)
    assert done.stdout == ""
    assert "--help" in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def check_lost_output(tool, *args):
    """Results that nobody got are no success, whatever took them away."""
    with open("/dev/full", "w") as full:
        done = tool(*args, status=FAILED, stdout=full)
        assert "No space left on device" in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = tool(*args, status=FAILED, stdout=pipe)
        assert "Broken pipe" in done.stderr
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", tool.binary,
                           *map(str, args)], stderr=subprocess.PIPE,
                          text=True, cwd=tool.folder)
    assert done.returncode == FAILED
    assert "Bad file descriptor" in done.stderr


def limit_files(count):
    """For preexec_fn: only so many descriptors."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
