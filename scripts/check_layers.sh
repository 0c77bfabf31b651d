#!/usr/bin/env bash
# Checks which folder includes what:
#
#   shard/  itself; xxHash, json-c, zlib, libzstd and libdeflate in its .c
#           files
#   comm/   itself and shard/; mpi.h in its .c files
#   gpu/    itself and shard/; CUDA in its .c files
#   fs/     itself and shard/; libfuse in its .c files;
#           comm/ and gpu/ in main.c and mount.c only
#   tests/  shard/ and itself; fs/ in fs_unit/, with libfuse and comm/; comm/
#           in comm/ and fuzz/; its programs run without a mount
#
# and that each folder is one static library with PRIVATE third-party
# libraries. Prints a line for each violation. Ends with 0 if there is none.
#
#   scripts/check_layers.sh [TREE]       checks TREE, by default this one
#   scripts/check_layers.sh --self-test  shows that each rule can fail
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Every #include of the tree, as "file<TAB>line<TAB>target" with the target's
# quotes or brackets.
# shellcheck disable=SC2016 # the dollars are those of awk
list_includes()
{
	local folder

	for folder in shard comm gpu fs tests; do
		[ -d "$1/$folder" ] || continue
		(cd "$1" && find "$folder" -name '*.[ch]' -type f -print0)
	done | sort -z | (cd "$1" && xargs -0 -r awk '
		/^[ \t]*#[ \t]*include/ {
			target = $0
			sub(/^[ \t]*#[ \t]*include(_next)?[ \t]*/, "", target)
			if (match(target, /^(<[^>]*>|"[^"]*")/))
				target = substr(target, 1, RLENGTH)
			printf "%s\t%d\t%s\n", FILENAME, FNR, target
		}')
}

# Judges the lines of list_includes.
judge_includes()
{
	awk -F '\t' '
	function bad(why) {
		printf "%s:%d: %s %s\n", $1, $2, $3, why
		count++
	}
	# The folder of the project that a header lies in, "" if none.
	function folder_of(target, file,	parts) {
		if (target ~ /(^|\/)\.\.?\//)
			return "?"
		split(target, parts, "/")
		if (target ~ /\// &&
		    parts[1] ~ /^(shard|comm|gpu|fs|tests)$/)
			return parts[1]
		if (target !~ /\//) {
			sub(/\/[^\/]*$/, "", file)
			split(file, parts, "/")
			return parts[1]
		}
		return ""
	}
	# The folder whose .c files alone may see a third-party header.
	function owner_of(target) {
		if (target ~ /^(linux\/)?(fuse|cuse)[0-9a-z_.]*(\/|$)/)
			return "fs"
		if (target ~ /^(openmpi\/|mpich\/)?mpi(\.h|_|-)/)
			return "comm"
		if (target ~ /^(cuda|cublas|nvml|nccl|driver_types\.h)/)
			return "gpu"
		if (target ~ /^(xxhash|xxh3|zlib|zstd|libdeflate|json-c\/|json[._])/)
			return "shard"
		return ""
	}
	{
		split($1, path, "/")
		from = path[1]
		target = substr($3, 2, length($3) - 2)
		if ($3 !~ /^["<]/) {
			bad("is computed: nobody can check it")
			next
		}
		owner = owner_of(target)
		if (owner != "") {
			if ($1 ~ /\.h$/ && $1 !~ /^tests\//)
				bad("in a header: only .c files of " owner \
				    "/ may see it")
			else if (from != owner && !(from == "tests" &&
				 (owner == "shard" || (owner == "fs" &&
				  $1 ~ /^tests\/fs_unit\//))))
				bad("belongs to " owner "/")
			next
		}
		to = substr($3, 1, 1) == "\"" ? folder_of(target, $1) : ""
		if (substr($3, 1, 1) == "<" &&
		    target ~ /^(shard|comm|gpu|fs)\//)
			bad("in brackets: headers of the project stand in " \
			    "quotes")
		if (to == "?")
			bad("goes through another folder: spell it from the " \
			    "top")
		if (to == "" || to == "?" || to == from)
			next
		if (to == "shard" && from != "shard")
			next
		if (to ~ /^(fs|comm)$/ && $1 ~ /^tests\/fs_unit\//)
			next
		if (to == "comm" && $1 ~ /^tests\/(comm|fuzz)\//)
			next
		if (from == "fs" && to ~ /^(comm|gpu)$/ &&
		    $1 ~ /^fs\/(main|mount)\.c$/)
			next
		bad("is above or beside " from "/")
	}
	END { exit count > 0 }'
}

# One static library per folder that has code, and nothing third-party PUBLIC.
judge_build()
{
	local tree=$1 folder status=0 text

	if [ ! -f "$tree/CMakeLists.txt" ]; then
		echo "CMakeLists.txt: missing"
		return 1
	fi
	text=$(find "$tree" -maxdepth 2 -name CMakeLists.txt -exec cat {} + |
		sed 's/#.*//' | tr '\n\t' '  ' | sed 's/)/)\n/g')
	for folder in shard comm gpu fs; do
		compgen -G "$tree/$folder/*.c" >/dev/null || continue
		if ! grep -Eiq "add_library *\( *[A-Za-z_]*$folder +STATIC" \
			<<<"$text"; then
			echo "CMakeLists.txt: no static library for $folder/"
			status=1
		fi
	done
	awk '/target_link_libraries/ {
		keyword = "PUBLIC"	# what CMake takes when none stands
		gsub(/[()]/, " ")
		for (i = 3; i <= NF; i++)
			if ($i ~ /^(PUBLIC|PRIVATE|INTERFACE)$/)
				keyword = $i
			else if (keyword != "PRIVATE" &&
				 tolower($i) ~ /fuse|xxhash|json|zlib|zstd|deflate|mpi|cuda/) {
				print "CMakeLists.txt: " $i " of " $2 \
				      " is not PRIVATE"
				bad = 1
			}
	}
	END { exit bad }' <<<"$text" || status=1
	return $status
}

check()
{
	local status=0

	list_includes "$1" | judge_includes || status=1
	judge_build "$1" || status=1
	return $status
}

# A small tree that keeps all rules.
make_tree()
{
	mkdir -p "$1"/{shard,comm,gpu,fs} \
		"$1"/tests/{shard,comm,fs_unit,fuzz}
	cat >"$1/CMakeLists.txt" <<-'END'
	add_library(t_shard STATIC shard/a.c)
	target_link_libraries(t_shard PRIVATE PkgConfig::XXHASH)
	add_library(t_comm STATIC comm/a.c)
	add_library(t_gpu STATIC gpu/a.c)
	add_library(t_fs STATIC fs/main.c)
	target_link_libraries(t_fs PUBLIC t_shard PRIVATE PkgConfig::FUSE)
	END
	printf '#include <stdint.h>\n' >"$1/shard/a.h"
	printf '#include "shard/a.h"\n#include <xxhash.h>\n' >"$1/shard/a.c"
	printf '#include "shard/a.h"\n' >"$1/comm/a.h"
	printf '#include "comm/a.h"\n#include <mpi.h>\n' >"$1/comm/a.c"
	printf '#include <cuda_runtime_api.h>\n' >"$1/gpu/a.c"
	printf '#include "shard/a.h"\n' >"$1/gpu/a.h"
	printf '#include "comm/a.h"\n#include "gpu/a.h"\n' >"$1/fs/main.c"
	printf '#include <fuse_lowlevel.h>\n' >"$1/fs/ops.c"
	printf '#include "shard/a.h"\n#include <cmocka.h>\n' \
		>"$1/tests/shard/test_a.c"
	printf '#include "fs/ops.h"\n' >"$1/tests/fs_unit/test_b.c"
	printf '#include "comm/a.h"\n#include "shard/a.h"\n' \
		>"$1/tests/comm/test_c.c"
	printf '#include "comm/a.h"\n' >"$1/tests/fuzz/fuzz_d.c"
}

# Each line: a file, and a line that must not stand in it.
violations()
{
	cat <<-'END'
	shard/a.c	#include "fs/ops.h"
	shard/a.c	#include "comm/a.h"
	shard/a.h	#include "gpu/a.h"
	shard/a.c	#include <fuse_lowlevel.h>
	shard/a.c	#include <fuse3/fuse.h>
	shard/a.c	#include <mpi.h>
	shard/a.c	#include "../fs/ops.h"
	shard/a.c	#include <fs/ops.h>
	shard/a.c	#include HEADER
	shard/a.h	#include <xxhash.h>
	shard/a.h	  #  include <json-c/json.h>
	comm/a.c	#include "gpu/a.h"
	comm/a.c	#include "fs/ops.h"
	comm/a.h	#include <mpi.h>
	comm/a.c	#include <cuda_runtime_api.h>
	gpu/a.c	#include "comm/a.h"
	gpu/a.h	#include <cuda.h>
	gpu/a.c	#include <mpi.h>
	fs/ops.c	#include "comm/a.h"
	fs/ops.c	#include "gpu/a.h"
	fs/main.c	#include <mpi.h>
	fs/main.c	#include <json-c/json.h>
	fs/ops.c	#include <xxhash.h>
	fs/ops.c	#include <zlib.h>
	fs/ops.c	#include <zstd.h>
	fs/ops.c	#include <libdeflate.h>
	tests/fs_unit/test_b.c	#include "comm/a.h"
	tests/shard/test_a.c	#include "comm/a.h"
	tests/comm/test_c.c	#include "fs/ops.h"
	tests/comm/test_c.c	#include <mpi.h>
	tests/fuzz/fuzz_d.c	#include "fs/ops.h"
	fs/ops.h	#include <fuse_lowlevel.h>
	fs/ops.h	#include "gpu/a.h"
	tests/shard/test_a.c	#include "fs/ops.h"
	tests/shard/test_a.c	#include <fuse.h>
	CMakeLists.txt	target_link_libraries(t_shard PUBLIC PkgConfig::FUSE)
	CMakeLists.txt	target_link_libraries(t_fs fuse3)
	END
}

self_test()
{
	local work file line failed=0 count=0

	work=$(mktemp -d)
	# shellcheck disable=SC2064 # the folder of now is meant
	trap "rm -rf '$work'" EXIT
	make_tree "$work/good"
	if ! check "$work/good"; then
		echo "check_layers: a good tree is refused"
		failed=1
	fi
	while IFS=$'\t' read -r file line; do
		rm -rf "$work/bad"
		cp -r "$work/good" "$work/bad"
		printf '%s\n' "$line" >>"$work/bad/$file"
		count=$((count + 1))
		if check "$work/bad" >"$work/out"; then
			echo "check_layers: not noticed in $file: $line"
			failed=1
		elif ! grep -q "^$file:" "$work/out"; then
			echo "check_layers: $file is not named for: $line"
			failed=1
		fi
	done < <(violations)
	rm -rf "$work/bad"
	cp -r "$work/good" "$work/bad"
	sed -i '/t_gpu/d' "$work/bad/CMakeLists.txt"
	count=$((count + 1))
	if check "$work/bad" >/dev/null; then
		echo "check_layers: a folder without a library is not noticed"
		failed=1
	fi
	[ $failed = 0 ] && echo "check_layers: $count violations noticed"
	return $failed
}

case ${1-} in
--self-test)
	self_test
	;;
-h | --help)
	sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
	;;
*)
	if check "${1:-$here}"; then
		echo "check_layers: the layers hold"
	else
		exit 1
	fi
	;;
esac
