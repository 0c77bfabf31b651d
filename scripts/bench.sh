#!/usr/bin/env bash
# Builds ckptfs (Release, in the folder build) and measures it.
#
#   scripts/bench.sh [--rows KEY,KEY] [--repeat N] [--json FILE] ...
#   scripts/bench.sh --help        all options and the names of the rows
#
# Makes its own checkpoints, with PyTorch where it is installed (run
# scripts/setup.sh once for that), else with the writer of the tests. Rows that
# compare with PyTorch, safetensors or transformers are left out, and say so,
# where those are not installed; rows about a command are left out where the
# ckptfs that is measured does not have it. Rows about several ranks need mpirun
# and mpicc, and those of several hosts need root as well. Needs up to 4 GiB in
# /dev/shm, or 6 GiB in --store DIR, where they stay, and 256 MiB on a disk, and
# as much memory again for the programs. Run it on a quiet machine; ratios are
# what counts. Its exit status says whether each row could be measured, never
# how fast it was.
#
# CKPTFS_BIN names a ckptfs to measure instead of the one it builds.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${CKPTFS_BUILD:-$top/build}
program=${CKPTFS_BIN:-}

if [ -z "$program" ]; then
	"$top/scripts/setup.sh" --build
	cmake -S "$top" -B "$build" -DCMAKE_BUILD_TYPE=Release \
		-DBUILD_TESTING=OFF >/dev/null
	cmake --build "$build" -j "$(nproc)" >/dev/null
	program=$build/ckptfs
fi
mkdir -p "$build"
"${CC:-cc}" -std=gnu11 -O2 -Wall -o "$build/bench_io" \
	"$top/scripts/bench/bench_io.c"
bare=()
if command -v mpicc >/dev/null && command -v mpirun >/dev/null; then
	mpicc -std=gnu11 -O2 -Wall -o "$build/bench_mpi" \
		"$top/scripts/bench/bench_mpi.c"
	bare=(--bare-mpi "$build/bench_mpi")
fi

python=${CKPTFS_VENV:-$top/.venv}/bin/python
[ -x "$python" ] || python=${PYTHON:-python3}
if ! "$python" -c 'import numpy' 2>/dev/null; then
	echo "bench: $python has no NumPy; run scripts/setup.sh first" >&2
	exit 1
fi
exec "$python" "$top/scripts/bench/bench.py" --program "$program" \
	--helper "$build/bench_io" --build "$build" "${bare[@]}" "$@"
