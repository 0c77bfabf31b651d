"""Measures ckptfs and prints a table; run by scripts/bench.sh."""

import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time

import checkpoints
import rows
import rows_ranks
import rows_safetensors
import rows_tools
from machine import Failed, run

ROWS = (rows.ROWS + rows_safetensors.ROWS + rows_tools.ROWS +
        rows_ranks.ROWS)


def arguments():
    keys = [row.key for row in ROWS]
    parser = argparse.ArgumentParser(
        prog="scripts/bench.sh", description="Measure ckptfs: a table of "
        "ratios of one run, medians of several turns.",
        epilog="rows: " + " ".join(keys))
    parser.add_argument("--rows", metavar="KEY,KEY",
                        help="only these rows (default: all)")
    parser.add_argument("--repeat", type=int, default=7, metavar="N",
                        help="turns of each measurement (default: 7)")
    parser.add_argument("--size", type=int, default=256, metavar="MIB",
                        help="of the large tensors (default: 256); some "
                        "checkpoints have four times as much")
    parser.add_argument("--store", metavar="DIR",
                        help="a folder on tmpfs for the checkpoints; what is "
                        "there already is used, and it stays (default: a "
                        "temporary one in /dev/shm)")
    parser.add_argument("--disk", metavar="DIR",
                        help="a folder on a disk, for the row of that name "
                        "(default: a temporary one in the build folder)")
    parser.add_argument("--json", metavar="FILE",
                        help="write every sample to FILE")
    parser.add_argument("--markdown", metavar="FILE",
                        help="write the table to FILE, as in the README")
    parser.add_argument("--no-torch", action="store_true",
                        help="make the checkpoints without PyTorch, and "
                        "leave out the rows that compare with it")
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--helper", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--bare-mpi", help=argparse.SUPPRESS)
    options = parser.parse_args()
    wanted = options.rows.split(",") if options.rows else keys
    unknown = [key for key in wanted if key not in keys]
    if unknown:
        parser.error("no such row: %s" % " ".join(unknown))
    if options.repeat < 1 or options.size % 8 or options.size < 8:
        parser.error("--repeat must be 1 or more, --size a multiple of 8")
    options.rows = [row for row in ROWS if row.key in wanted]
    return options


def kind_of(folder):
    """The type of the file system that holds a folder."""
    return run("stat", "-f", "-c", "%T", folder).stdout.strip()


def busy_share():
    """Of all processors, over one second of doing nothing here."""
    def ticks():
        line = pathlib.Path("/proc/stat").read_text().split("\n")[0]
        fields = [int(word) for word in line.split()[1:9]]
        return sum(fields), fields[3] + fields[4]
    all_before, idle_before = ticks()
    time.sleep(1)
    all_after, idle_after = ticks()
    return 1 - (idle_after - idle_before) / (all_after - all_before)


def about(options):
    """What the figures depend on."""
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    version = subprocess.run([options.program, "--version"],
                             capture_output=True, text=True).stdout
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0)),
            "kernel": platform.release().split("-")[0],
            "busy": busy_share(), "ckptfs": version.split("\n")[0],
            "store": kind_of(options.store), "disk": kind_of(options.disk),
            "torch": options.torch, "repeats": options.repeat,
            "tensor_mib": options.size}


def amount(value, unit):
    text = "%.1f" % value if unit in ("us", "MiB", "x", "/s") and value < 1000 \
        else "%.3f" % value if unit == "s" or value < 0.1 \
        else "%.2f" % value
    return text + (unit if unit in ("", "x", "/s") else " " + unit)


def goal_text(row):
    if row.goal is None:
        return "-"
    if row.goal == 0:
        return "0" + row.unit
    unit = row.unit if row.unit in ("", "x", "/s") else " " + row.unit
    return "%s %g%s" % (">=" if row.more_is_better else "<=", row.goal, unit)


HEADING = """\
{cpus} x {cpu}, Linux {kernel}, {ckptfs}; store on {store}, disk row on {disk};
tensors of {tensor_mib} MiB; medians of {repeats}.

| row | measured | goal | |
| --- | --- | --- | --- |
"""


def write_markdown(path, machine, results):
    with open(path, "w") as file:
        file.write(HEADING.format(**machine))
        for row, result in results:
            measured = amount(result["measured"], row.unit) \
                if "measured" in result else "-"
            file.write("| %s | %s | %s | %s |\n" % (
                row.title, measured, goal_text(row),
                result.get("detail",
                           result.get("left_out", "not measured"))))


def print_line(title, measured, goal, met, detail):
    print("%-47s %10s  %-10s %-4s %s" % (title, measured, goal, met, detail),
          flush=True)


def why_not(bench, row, options):
    """Why a row cannot be measured here, or None."""
    if row.modules and options.no_torch:
        return "PyTorch is not wanted"
    for module in row.modules:
        if not checkpoints.has(module):
            return "Python has no %s" % module
    for command in row.commands:
        if not bench.has_command(command):
            return "ckptfs has no command %s" % command
    return row.missing(bench) if row.missing else None


def measure(bench, row, options):
    """The result as a dictionary, after a line of the table is printed."""
    record = {"key": row.key, "row": row.title, "goal": row.goal,
              "unit": row.unit}
    try:
        reason = why_not(bench, row, options)
        if reason:
            print_line(row.title, "-", goal_text(row), "-",
                       "left out: " + reason)
            return dict(record, left_out=reason)
        if row.key == "disk" and kind_of(bench.disk) in ("tmpfs", "ramfs"):
            raise Failed("%s is not on a disk; try --disk" % bench.disk)
        checkpoints.make(bench.store, row.needs, options.size, options.torch)
        result = row.measure(bench)
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print_line(row.title, "failed", goal_text(row), "-", error)
        return dict(record, error=str(error))
    met = row.met(round(result.value, 3))
    print_line(row.title, amount(result.value, result.unit), goal_text(row),
               {True: "yes", False: "NO", None: "-"}[met], result.detail)
    return dict(record, measured=result.value, met=met, detail=result.detail,
                samples=result.samples)


def measure_all(bench, options):
    """Checkpoints that no later row needs make room for others."""
    results = []
    for index, row in enumerate(options.rows):
        results.append(measure(bench, row, options))
        if bench.store in options.temporary:
            later = {name for other in options.rows[index + 1:]
                     for name in other.needs}
            checkpoints.remove(bench.store, set(row.needs) - later)
    return results


def bench_in(options, point):
    machine = about(options)
    print("%(cpus)d x %(cpu)s, Linux %(kernel)s, %(ckptfs)s" % machine)
    print("store on %(store)s, disk row on %(disk)s; tensors of "
          "%(tensor_mib)d MiB; medians of %(repeats)d" % machine)
    if machine["busy"] > 0.05:
        print("other programs take %.0f %% of the processors: do not trust "
              "what follows" % (100 * machine["busy"]))
    print()
    print_line("row", "measured", "goal", "met", "")
    bench = rows.Bench(options.program, options.helper, options.store,
                       options.disk, point, options.repeat, options.size,
                       options.bare_mpi)
    results = measure_all(bench, options)
    if options.markdown:
        write_markdown(options.markdown, machine, zip(options.rows, results))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": machine, "rows": results}, file, indent=1)
            file.write("\n")
    return 1 if any("error" in result for result in results) else 0


def main():
    options = arguments()
    options.torch = not options.no_torch and checkpoints.has(rows.TORCH[0])
    options.temporary = []
    if options.store is None:
        options.store = tempfile.mkdtemp(prefix="ckptfs-bench-",
                                         dir="/dev/shm")
        options.temporary.append(pathlib.Path(options.store).resolve())
    if options.disk is None:
        options.disk = tempfile.mkdtemp(prefix="bench-", dir=options.build)
        options.temporary.append(pathlib.Path(options.disk).resolve())
    options.store = pathlib.Path(options.store).resolve()
    options.disk = pathlib.Path(options.disk).resolve()
    point = pathlib.Path(tempfile.mkdtemp(prefix="ckptfs-bench-mnt-"))
    try:
        for folder in (options.store, options.disk):
            folder.mkdir(parents=True, exist_ok=True)
        return bench_in(options, point)
    finally:
        if os.path.ismount(point):
            subprocess.run(["fusermount3", "-uz", str(point)])
        point.rmdir()
        for folder in options.temporary:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
