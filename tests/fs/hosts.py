"""Hosts on this machine: network name spaces that a switch joins.

Each host has a network of its own (eth0 and lo), a name of its own and a
folder for temporary files of its own.  File systems are shared, so what is
mounted on a host can be seen from here.

        h0        h1        h2          10.77.0.1, 10.77.0.2, ...
        |eth0     |eth0     |eth0
      p0|       p1|       p2|
      --+---------+---------+--         a bridge, in a name space too

Nothing is set up outside of the name spaces, so any number of sets can be
there at once.
"""

import itertools
import os
import pathlib
import shutil
import signal
import subprocess

from mounting import poll, send

NETWORK = "10.77.0"
SERIAL = itertools.count()

# What mpirun starts on a host instead of ssh: AGENT [option...] HOST COMMAND.
AGENT = """#!/bin/sh
# ssh's place is taken: HOST COMMAND... runs in the host's name spaces.
while :; do
	case $1 in
	-*) shift ;;
	*) break ;;
	esac
done
host=$1
shift
exec nsenter --net=/run/netns/%(tag)s-"$host" unshare --uts \\
	/bin/sh %(folder)s/enter.sh "$host" /bin/sh -c "$*"
"""

ENTER = """#!/bin/sh
# enter.sh HOST COMMAND...: runs in the name spaces already.
hostname "$1"
TMPDIR=%(folder)s/$1
export TMPDIR
shift
exec "$@"
"""


def missing():
    """Why there can be no hosts here; "" if there can."""
    if os.geteuid() != 0:
        return "needs root: hosts are network name spaces"
    for tool in ("ip", "nsenter", "unshare"):
        if not shutil.which(tool):
            return "needs root and network name spaces: there is no " + tool
    name = "ckptfs-probe-%d" % os.getpid()
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "add", "name", "br0", "type", "bridge")
        ip("-n", name, "link", "add", "name", "eth0", "type", "veth", "peer",
           "name", "p0")
        subprocess.run(["nsenter", "--net=/run/netns/" + name, "unshare",
                        "--uts", "true"], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        return "needs root and network name spaces: " + \
            error.stderr.decode(errors="replace").strip()
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return ""


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, timeout=20)


def processes_in(space):
    """Those of a name space, but for zombies; none if it is not there."""
    done = subprocess.run(["ip", "netns", "pids", space],
                          capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


class Hosts:
    def __init__(self, count):
        self.count = count
        # Open MPI's sockets lie here, and their paths may not be long.
        self.folder = pathlib.Path("/tmp/ckptfs-hosts-%d-%d" % (
            os.getpid(), next(SERIAL)))
        self.tag = self.folder.name
        self.switch = self.tag + "-switch"
        self.names = ["h%d" % i for i in range(count)]
        self.agent = self.folder / "agent.sh"

    def space(self, host):
        return "%s-h%d" % (self.tag, host)

    # Making and removing

    def __enter__(self):
        try:
            self.make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *unused):
        self.remove()

    def make(self):
        self.folder.mkdir()
        fill = {"tag": self.tag, "folder": self.folder}
        self.agent.write_text(AGENT % fill)
        self.agent.chmod(0o755)
        (self.folder / "enter.sh").write_text(ENTER % fill)
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "name", "br0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "dev", "br0", "up")
        for host, name in enumerate(self.names):
            (self.folder / name).mkdir()
            space, port = self.space(host), "p%d" % host
            ip("netns", "add", space)
            ip("-n", space, "link", "add", "name", "eth0", "type", "veth",
               "peer", "name", port, "netns", self.switch)
            ip("-n", space, "addr", "add", self.address(host) + "/24", "dev",
               "eth0")
            ip("-n", space, "link", "set", "dev", "lo", "up")
            ip("-n", space, "link", "set", "dev", "eth0", "up")
            ip("-n", self.switch, "link", "set", "dev", port, "master", "br0",
               "up")

    def remove(self):
        for space in [self.space(h) for h in range(self.count)] + \
                [self.switch]:
            for pid in processes_in(space):
                send(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # Using

    def address(self, host):
        return "%s.%d" % (NETWORK, host + 1)

    def enter(self, host):
        """What stands before a command that is to run on the host."""
        return ["nsenter", "--net=/run/netns/" + self.space(host), "unshare",
                "--uts", "/bin/sh", str(self.folder / "enter.sh"),
                self.names[host]]

    def run(self, host, command, **options):
        return subprocess.run([*self.enter(host), *map(str, command)],
                              **options)

    def mpirun_options(self, ranks):
        """One rank on each host; mpirun itself runs on the first."""
        where = ",".join("%s:1" % name for name in self.names[:ranks])
        network = NETWORK + ".0/24"
        return ["--host", where, "--map-by", "ppr:1:node",
                "--mca", "plm_rsh_agent", str(self.agent),
                "--mca", "pml", "ob1", "--mca", "btl", "tcp,self",
                "--mca", "btl_tcp_if_include", network,
                "--mca", "oob_tcp_if_include", network]

    # Faults

    def cut(self, host):
        """Pull the cable: the host's port of the switch is down."""
        ip("-n", self.switch, "link", "set", "dev", "p%d" % host, "down")

    def mend(self, host):
        ip("-n", self.switch, "link", "set", "dev", "p%d" % host, "up")

    def kill_all(self, host):
        """Kill every process of the host: with one, others may end, and one
        may have started another."""
        def nobody_left():
            left = processes_in(self.space(host))
            for pid in left:
                send(pid, signal.SIGKILL)
            return not left

        poll(nobody_left, 10, "no process is left on host %d" % host)

    def disable(self, host):
        """The host's own interface goes down, and its routes with it."""
        ip("-n", self.space(host), "link", "set", "dev", "eth0", "down")

    def enable(self, host):
        ip("-n", self.space(host), "link", "set", "dev", "eth0", "up")

    def mend_all(self):
        for host in range(self.count):
            self.mend(host)
            self.enable(host)
