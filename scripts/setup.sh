#!/usr/bin/env bash
# Installs what ckptfs needs. Does nothing where nothing is missing, so it may
# be run again and again.
#
#   scripts/setup.sh           everything: to build, to test, to measure
#   scripts/setup.sh --build   only what building and mounting need
#   scripts/setup.sh --check   install nothing; say what is missing
#
# Packages come from apt-get, as root or through sudo. Where neither is there,
# or the machine has no apt-get, the list of what is missing is printed.
# Python packages (torch for the CPU, NumPy, safetensors, transformers, pytest
# and others) go to a virtual environment in the folder .venv, or in
# $CKPTFS_VENV.
#
# pip takes the CPU build of torch where the machine's pip settings know one
# (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL or pip.conf); else the default build,
# which on x86-64 brings several gigabytes of GPU libraries along.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${CKPTFS_VENV:-$top/.venv}
python=${PYTHON:-python3}
torch=torch==2.13.0

tests=1 install=1
for argument; do
	case $argument in
	--build) tests=0 ;;
	--check) install=0 ;;
	-h | --help)
		sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' \
			"${BASH_SOURCE[0]}"
		exit 0
		;;
	*)
		echo "setup: unknown argument: $argument (see --help)" >&2
		exit 2
		;;
	esac
done

say() { printf 'setup: %s\n' "$*"; }
fail() {
	printf 'setup: %s\n' "$*" >&2
	exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }
library() { pkg-config --exists "$*" 2>/dev/null; }
has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
has_clang() { has clang-14 || has clang; }
has_fuzzer() {
	local clang probe

	clang=$(command -v clang-14 || command -v clang) || return 1
	probe=$("$clang" -print-file-name=libclang_rt.fuzzer-"$(uname -m)".a)
	[ -e "$probe" ] ||
		compgen -G "$("$clang" -print-runtime-dir)/libclang_rt.fuzzer*" \
			>/dev/null
}

# What is missing, as Debian package names. The checks ask for the thing and
# not for the package, so that other ways to install it are as good.
missing_packages() {
	has cc || has gcc || echo gcc libc6-dev
	has cmake || echo cmake
	has make || has ninja || echo make
	has pkg-config || echo pkg-config
	library fuse3 '>= 3.14' || echo libfuse3-dev
	library libxxhash || echo libxxhash-dev
	library json-c || echo libjson-c-dev
	library zlib || echo zlib1g-dev
	library libzstd || echo libzstd-dev
	library libdeflate || echo libdeflate-dev
	library ompi-c || has mpicc || echo libopenmpi-dev
	has mpirun || echo openmpi-bin
	has fusermount3 || echo fuse3
	has getfattr || echo attr
	[ "$tests" = 1 ] || return 0
	has gcc || echo gcc libc6-dev
	library cmocka || echo libcmocka-dev
	has "$python" || echo python3
	has_venv || echo python3-venv
	has rsync || echo rsync
	has mandoc || echo mandoc
	has ip || echo iproute2
	has setarch || echo util-linux
	if ! has_clang; then
		if has apt-cache && apt-cache show clang-14 >/dev/null 2>&1; then
			echo clang-14
		else
			echo clang
		fi
	elif ! has_fuzzer && has apt-cache &&
		apt-cache show libclang-rt-14-dev >/dev/null 2>&1; then
		echo libclang-rt-14-dev
	fi
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif has sudo; then
		sudo "$@"
	else
		return 127
	fi
}

install_packages() {
	local packages

	mapfile -t packages < <(missing_packages | tr ' ' '\n')
	[ ${#packages[@]} -gt 0 ] || return 0
	if [ $install = 0 ]; then
		say "missing packages: ${packages[*]}"
		return 1
	fi
	if ! has apt-get; then
		fail "please install what Debian calls: ${packages[*]}"
	fi
	if [ "$(id -u)" != 0 ] && ! has sudo; then
		fail "please run as root: apt-get install ${packages[*]}"
	fi
	say "installing ${packages[*]}"
	as_root apt-get update -q >/dev/null ||
		say "apt-get update failed; trying what is known already"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
		--no-install-recommends "${packages[@]}" >/dev/null
}

# What is there may be too old. And clang alone does not always bring its
# run-time libraries: those are asked for once clang is there.
install_all() {
	local packages

	install_packages || return
	[ $install = 1 ] || return 0
	install_packages || return
	mapfile -t packages < <(missing_packages | tr ' ' '\n')
	[ ${#packages[@]} -eq 0 ] ||
		fail "no recent enough version of: ${packages[*]}"
}

# The stamp holds what was asked for when the environment was made.
install_python() {
	local stamp=$venv/ckptfs-requirements wanted

	wanted=$(echo "$torch" && cat "$top/scripts/requirements.txt")
	if [ -x "$venv/bin/python" ] && [ -f "$stamp" ] &&
		[ "$(cat "$stamp")" = "$wanted" ]; then
		return 0
	fi
	if [ $install = 0 ]; then
		say "missing: the Python environment $venv"
		return 1
	fi
	"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
		fail "torch needs Python 3.10 or later; set PYTHON to one"
	say "making the Python environment $venv (this takes a while)"
	[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv" || return
	"$venv/bin/pip" install -q "$torch+cpu" 2>/dev/null ||
		"$venv/bin/pip" install -q "$torch" || return
	"$venv/bin/pip" install -q -r "$top/scripts/requirements.txt" || return
	printf '%s\n' "$wanted" >"$stamp"
}

status=0
install_all || status=1
if [ $tests = 1 ]; then
	install_python || status=1
fi
if [ ! -e /dev/fuse ]; then
	say "there is no /dev/fuse: mounting will not work (try: modprobe fuse;"
	say "in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
fi
[ $status = 1 ] || say "all is there"
exit $status
