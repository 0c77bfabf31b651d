#!/usr/bin/env bash
# Installs what is missing, builds ckptfs, mounts a checkpoint, and shows what
# is there and how to leave.
#
#   scripts/quickstart.sh [CHECKPOINT [MNT]]
#
# CHECKPOINT is a checkpoint or a folder that holds some; by default a small
# one that comes along. MNT is the folder to mount at, by default build/mnt; a
# ckptfs mount that is there already is replaced.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${CKPTFS_BUILD:-$top/build}

case ${1-} in
-h | --help)
	sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
	exit 0
	;;
esac
if [ $# -gt 2 ]; then
	echo "usage: scripts/quickstart.sh [CHECKPOINT [MNT]]" >&2
	exit 2
fi

fail() {
	printf 'quickstart: %s\n' "$*" >&2
	exit 1
}

# A path as one would type it here.
near() { realpath -s --relative-base=. "$1"; }

# A command as one would type it.
typed() {
	local word line=

	for word; do
		if [[ $word == *[^a-zA-Z0-9_./:=,+@-]* || $word == "" ]]; then
			word="'${word//\'/\'\\\'\'}'"
		fi
		line="$line $word"
	done
	printf '%s' "${line# }"
}

# Prints a command and the first lines of what it says.
show() {
	printf '\n$ %s\n' "$(typed "$@")"
	"$@" | awk 'NR <= 10 && NF { print } END { if (NR > 10)
		print "... and " NR - 10 " more lines" }' ||
		fail "that did not work; the log is $(near "$log")"
}

build_program() {
	"$top/scripts/setup.sh" --build
	echo "quickstart: building"
	if ! {
		cmake -S "$top" -B "$build" -DCMAKE_BUILD_TYPE=Release \
			-DBUILD_TESTING=OFF &&
			cmake --build "$build" --target ckptfs -j "$(nproc)"
	} >"$build/quickstart-build.log" 2>&1; then
		tail -n 20 "$build/quickstart-build.log" >&2
		fail "the build failed; all of it is in" \
			"$(near "$build/quickstart-build.log")"
	fi
}

mount_checkpoint() {
	local kind

	[ -e /dev/fuse ] || fail "this machine has no /dev/fuse; mounting needs it"
	if [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
		fail "$(id -un) must not use /dev/fuse: $(ls -l /dev/fuse)"
	fi
	mkdir -p "$mnt" 2>/dev/null || true
	kind=$(findmnt -n -o FSTYPE --mountpoint "$mnt" 2>/dev/null | tail -n 1) ||
		true
	case $kind in
	fuse.ckptfs)
		fusermount3 -u "$mnt" || fail "$(near "$mnt") is in use;" \
			"leave it and try again"
		;;
	"")
		[ -d "$mnt" ] || fail "there is no folder $(near "$mnt")"
		;;
	*) fail "$(near "$mnt") is a mount already, of type $kind" ;;
	esac
	printf '\n$ %s\n' "$(typed "$(near "$build/ckptfs")" \
		"$(near "$source")" "$(near "$mnt")")"
	"$build/ckptfs" "$source" "$mnt" -o "log=$log" ||
		fail "the mount failed"
}

# The name of a tensor in a folder: the first matrix, else the first of all.
choose_tensor() {
	local name first=

	while IFS= read -r name; do
		first=${first:-$name}
		case $(getfattr --absolute-names --only-values \
			-n user.ckptfs.shape "$1/$name") in
		*,*)
			first=$name
			break
			;;
		esac
	done < <(find "$1/" -type f -printf '%f\n' | LC_ALL=C sort | head -n 50)
	printf '%s' "$first"
}

show_checkpoint() {
	local link folder tensor slice object

	link=$(find "$mnt" -maxdepth 8 -name tensors.json -type l |
		LC_ALL=C sort | sed -n 1p)
	if [ -z "$link" ]; then
		show ls "$(near "$mnt")"
		echo
		echo "No checkpoint that ckptfs reads is in there. Its log:"
		cat "$log"
		return
	fi
	folder=$(near "$(dirname "$link")")
	show ls -A "$folder"
	show ls "$folder/tensors/"
	tensor=$(choose_tensor "$folder/tensors")
	if [ -n "$tensor" ]; then
		show getfattr --absolute-names -d \
			-m '^user.ckptfs.(dtype|shape)$' \
			"$folder/tensors/$tensor"
		# Scalars have no slices, and a tensor may be empty.
		slice="$folder/tensors/${tensor}[0:1]"
		[ ! -e "$slice" ] || show od -A d -t x1 -N 64 "$slice"
	fi
	object=$(find "$folder/objects/" -name '*.json' | LC_ALL=C sort |
		sed -n 1p)
	[ -z "$object" ] || show head -c 400 "$object"
}

source=$(realpath -e "${1:-$top/tests/data/sample}" 2>/dev/null) ||
	fail "there is no $1"
mnt=$(realpath -m -s "${2:-$build/mnt}")
log=$build/quickstart.log
mkdir -p "$build"
: >"$log"
build_program
mount_checkpoint
show_checkpoint
cat <<-END


	It stays mounted. README.md says what else is there. To leave:

	    $(typed fusermount3 -u "$(near "$mnt")")

END
