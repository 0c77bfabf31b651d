#!/usr/bin/env bash
# Checks which folder includes what. Each sees itself and those above it here:
#
#   shard/base  catalog  values  dcp  safetensors  codec  read  store
#   shard/checkpoint  verify  write
#   comm/   and gpu/, which do not see each other
#   fs/     its headers; view  tree  fuse  and cli, none of which sees comm/ or
#           gpu/; main.c, which sees all
#   tests/  shard/ and itself; all of comm/ and fs/ in fs_unit/, comm/ in comm/
#           and fuzz/; its programs run without a mount
#
# and where headers of others may stand, in .c files only:
#
#   xxHash in shard/base; json-c in shard/base, catalog, dcp and safetensors;
#   zlib in shard/dcp and verify; libdeflate in shard/verify; zstd in shard/codec;
#   mpi.h in comm/; CUDA in gpu/; libfuse in fs/fuse and beside fs/main.c
#
# and that each folder is one static library with PRIVATE third-party libraries,
# and that no two files include each other (include_cycles.py).
# Prints a line for each violation. Ends with 0 if there is none.
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
	BEGIN {
		split("shard/base shard/catalog shard/values shard/dcp " \
		      "shard/safetensors shard/codec shard/read shard/store " \
		      "shard/checkpoint shard/verify shard/write comm gpu " \
		      "fs fs/view fs/tree fs/fuse fs/cli main tests", names,
		      " ")
		for (i in names)
			level[names[i]] = i + 0
		libraries["xxhash"] = "shard/base"
		libraries["json-c"] = "shard/base shard/catalog shard/dcp " \
				      "shard/safetensors"
		libraries["zlib"] = "shard/dcp shard/verify"
		libraries["libdeflate"] = "shard/verify"
		libraries["zstd"] = "shard/codec"
		libraries["fuse"] = "fs/fuse main"
		libraries["mpi"] = "comm"
		libraries["cuda"] = "gpu"
	}
	function bad(why) {
		printf "%s:%d: %s %s\n", $1, $2, $3, why
		count++
	}
	# The layer that a file of the project lies in, "" if none.
	function layer_of(file,	parts) {
		split(file, parts, "/")
		if (parts[1] == "tests" || parts[1] == "comm" ||
		    parts[1] == "gpu")
			return parts[1]
		if (parts[1] != "shard" && parts[1] != "fs")
			return ""
		if (parts[3] != "")
			return parts[1] "/" parts[2]
		if (file ~ /^fs\/(main|options)\.[ch]$/)
			return "main"
		return parts[1]
	}
	# Whose header it is, of what is not of the project.
	function library_of(target) {
		if (target ~ /^(linux\/)?(fuse|cuse)[0-9a-z_.]*(\/|$)/)
			return "fuse"
		if (target ~ /^(openmpi\/|mpich\/)?mpi(\.h|_|-)/)
			return "mpi"
		if (target ~ /^(cuda|cublas|nvml|nccl|driver_types\.h)/)
			return "cuda"
		if (target ~ /^(xxhash|xxh3)/)
			return "xxhash"
		if (target ~ /^(json-c\/|json[._])/)
			return "json-c"
		if (target ~ /^(zlib|zstd|libdeflate)/) {
			sub(/[^a-z].*/, "", target)
			return target
		}
		return ""
	}
	function is_in(word, list) {
		return index(" " list " ", " " word " ") > 0
	}
	function tests_may_see(file, to) {
		return to ~ /^shard/ || file ~ /^tests\/fs_unit\// ||
		       (to == "comm" && file ~ /^tests\/(comm|fuzz)\//)
	}
	# Why it may not stand there, or "".
	function judge_library(library) {
		if (from == "tests" &&
		    ($1 ~ /^tests\/fs_unit\// && library == "fuse" ||
		     libraries[library] ~ /shard/))
			return ""
		if (from == "tests")
			return "is not for these tests"
		if ($1 ~ /\.h$/)
			return "in a header: only .c files may see it"
		if (is_in(from, libraries[library]))
			return ""
		return "belongs to " libraries[library]
	}
	{
		from = layer_of($1)
		target = substr($3, 2, length($3) - 2)
		if ($3 !~ /^["<]/) {
			bad("is computed: nobody can check it")
			next
		}
		library = library_of(target)
		if (library != "") {
			why = judge_library(library)
			if (why != "")
				bad(why)
			next
		}
		if (target ~ /(^|\/)\.\.?\//) {
			bad("goes through another folder: spell it from the " \
			    "top")
			next
		}
		to = layer_of(target)
		if (substr($3, 1, 1) == "<") {
			if (to != "")
				bad("in brackets: headers of the project " \
				    "stand in quotes")
			next
		}
		if (to == "" && from != "tests")
			bad("is not spelt from the top")
		if (to == "" || to == from)
			next
		if (!(to in level) || !(from in level))
			bad("is in no layer: see the head of check_layers.sh")
		else if (from == "tests") {
			if (!tests_may_see($1, to))
				bad("is not for these tests")
		} else if (level[to] > level[from] ||
			   (to ~ /^(comm|gpu)$/ && from != "main"))
			bad("is above or beside " from)
	}
	END { exit count > 0 }'
}

# One library per folder that has code, and nothing third-party PUBLIC.
judge_build()
{
	local tree=$1 folder status=0 text

	if [ ! -f "$tree/CMakeLists.txt" ]; then
		echo "CMakeLists.txt: missing"
		return 1
	fi
	text=$(find "$tree" -maxdepth 2 -name CMakeLists.txt -exec cat {} + |
		sed 's/#.*//' | tr '\n\t' '  ' | sed 's/)/)\n/g')
	for folder in "$tree"/{shard,comm,gpu,fs}{,/*}/; do
		folder=${folder#"$tree"/}
		folder=${folder%/}
		compgen -G "$tree/$folder/*.c" >/dev/null || continue
		if ! grep -Eq "add_folder *\( *$folder " <<<"$text"; then
			echo "CMakeLists.txt: no library for $folder"
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
	python3 "$here/scripts/include_cycles.py" "$1" shard comm gpu fs ||
		status=1
	return $status
}

# A small tree that keeps all rules.
make_tree()
{
	local folders=(shard/base shard/catalog shard/read comm gpu fs/tree
		fs/fuse) folder

	mkdir -p "${folders[@]/#/$1/}" "$1"/tests/{shard,comm,fs_unit,fuzz}
	for folder in "${folders[@]}" fs; do
		printf 'add_folder(%s SOURCES a.c PRIVATE foo)\n' "$folder"
	done >"$1/CMakeLists.txt"
	printf 'target_link_libraries(t PRIVATE PkgConfig::FUSE)\n' \
		>>"$1/CMakeLists.txt"
	printf '#include <stdint.h>\n' >"$1/shard/base/a.h"
	printf '#include "shard/base/a.h"\n#include <xxhash.h>\n' \
		>"$1/shard/base/a.c"
	printf '#include "shard/base/a.h"\n' >"$1/shard/catalog/b.h"
	printf '#include "shard/catalog/b.h"\n#include <json-c/json.h>\n' \
		>"$1/shard/catalog/b.c"
	printf '#include "shard/catalog/b.h"\n' >"$1/shard/read/c.c"
	printf '#include "shard/base/a.h"\n' >"$1/comm/a.h"
	printf '#include "comm/a.h"\n#include <mpi.h>\n' >"$1/comm/a.c"
	printf '#include "comm/a.h"\n' >"$1/comm/b.h"
	printf '#include <cuda_runtime_api.h>\n' >"$1/gpu/a.c"
	printf '#include "shard/base/a.h"\n' >"$1/gpu/a.h"
	printf '#include "comm/a.h"\n#include "gpu/a.h"\n' >"$1/fs/main.c"
	printf '#include "shard/read/c.h"\n' >"$1/fs/log.h"
	printf '#include "fs/log.h"\n' >"$1/fs/tree/d.h"
	printf '#include <fuse_lowlevel.h>\n#include "fs/tree/d.h"\n' \
		>"$1/fs/fuse/ops.c"
	printf '#include "shard/base/a.h"\n#include <cmocka.h>\n' \
		>"$1/tests/shard/test_a.c"
	printf '#include "fs/fuse/ops.h"\n#include "comm/a.h"\n' \
		>"$1/tests/fs_unit/test_b.c"
	printf '#include "comm/a.h"\n#include "shard/base/a.h"\n' \
		>"$1/tests/comm/test_c.c"
	printf '#include "comm/a.h"\n' >"$1/tests/fuzz/fuzz_d.c"
}

# Each line: a file, and a line that must not stand in it.
violations()
{
	cat <<-'END'
	shard/base/a.c	#include "fs/fuse/ops.h"
	shard/base/a.c	#include "comm/a.h"
	shard/base/a.c	#include "shard/catalog/b.h"
	shard/base/a.c	#include "a.h"
	shard/base/a.c	#include "shard/a.h"
	shard/catalog/b.c	#include "shard/read/c.h"
	shard/catalog/b.c	#include "shard/elsewhere/c.h"
	shard/catalog/b.c	#include <xxhash.h>
	shard/read/c.c	#include <json-c/json.h>
	shard/base/a.h	#include "gpu/a.h"
	shard/base/a.h	#include "shard/catalog/b.h"
	shard/base/a.c	#include <fuse_lowlevel.h>
	shard/base/a.c	#include <fuse3/fuse.h>
	shard/base/a.c	#include <mpi.h>
	shard/base/a.c	#include "../fs/ops.h"
	shard/base/a.c	#include <fs/fuse/ops.h>
	shard/base/a.c	#include HEADER
	shard/base/a.h	#include <xxhash.h>
	shard/catalog/b.h	  #  include <json-c/json.h>
	comm/a.c	#include "gpu/a.h"
	comm/a.h	#include "comm/b.h"
	comm/a.c	#include "comm/b.h"
	comm/a.c	#include "fs/fuse/ops.h"
	comm/a.h	#include <mpi.h>
	comm/a.c	#include <cuda_runtime_api.h>
	gpu/a.c	#include "comm/a.h"
	gpu/a.h	#include <cuda.h>
	gpu/a.c	#include <mpi.h>
	fs/fuse/ops.c	#include "comm/a.h"
	fs/fuse/ops.c	#include "gpu/a.h"
	fs/tree/d.h	#include "fs/fuse/ops.h"
	fs/log.h	#include "fs/tree/d.h"
	fs/main.c	#include <mpi.h>
	fs/main.c	#include <json-c/json.h>
	fs/tree/d.h	#include <xxhash.h>
	fs/fuse/ops.c	#include <zlib.h>
	fs/fuse/ops.c	#include <zstd.h>
	fs/fuse/ops.c	#include <libdeflate.h>
	tests/shard/test_a.c	#include "comm/a.h"
	tests/comm/test_c.c	#include "fs/fuse/ops.h"
	tests/comm/test_c.c	#include <mpi.h>
	tests/fuzz/fuzz_d.c	#include "fs/fuse/ops.h"
	fs/tree/d.h	#include <fuse_lowlevel.h>
	fs/tree/d.h	#include "gpu/a.h"
	tests/shard/test_a.c	#include "fs/fuse/ops.h"
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
	sed -i '/gpu/d' "$work/bad/CMakeLists.txt"
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
