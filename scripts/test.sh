#!/usr/bin/env bash
# Runs all tests, and ends with the line "N passed, N failed".
#
#   scripts/test.sh             everything
#   scripts/test.sh PART...     only these parts
#
# Parts:
#   static    layers, shell scripts, man page
#   release   gcc, warnings are errors: unit tests, all tests on real mounts,
#             installation
#   asan      the same tests, but for heavy ones, under AddressSanitizer and
#             UBSan
#   tsan      unit tests and the concurrent tests under ThreadSanitizer
#   fuzz      the fuzz targets, built by clang, over their corpus
#   clang     builds with clang, warnings are errors, and runs the unit tests
#
# And one that runs only when it is named:
#   soak      ten minutes, or CKPTFS_SOAK seconds, of random use of four ranks
#
# What is needed is installed first, by scripts/setup.sh. Builds and logs go to
# build/test. A part that cannot run counts as failed. A test may be skipped
# only if scripts/allowed-skips.txt says so.
set -uo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${CKPTFS_BUILD:-$top/build}/test
venv=${CKPTFS_VENV:-$top/.venv}
jobs=$(nproc)
parts=(static release asan tsan fuzz clang)
more_parts=(soak)

# Sanitizers of this age do not start on kernels that randomize addresses
# with many bits.
fixed=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
	fixed=(setarch "$(uname -m)" -R)
fi
export ASAN_OPTIONS=detect_stack_use_after_return=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=second_deadlock_stack=1:halt_on_error=0:exitcode=66

passed=0 failed=0 skipped=0
part=

# How much of the log of what failed is printed. Where the log itself is lost
# afterwards, all of it is worth having.
tail=20
[ -z "${CI-}" ] || tail=100000

count() {
	passed=$((passed + $1))
	failed=$((failed + $2))
	skipped=$((skipped + $3))
}

# check TITLE COMMAND...: counts as one test.
check() {
	local title=$1 log

	shift
	log=$work/$part-${title//[^a-z0-9]/-}.log
	if "$@" >"$log" 2>&1; then
		count 1 0 0
		printf '%s: %s: passed\n' "$part" "$title"
		return 0
	fi
	count 0 1 0
	tail -n $tail "$log"
	printf '%s: %s: FAILED; all of it is in %s\n' "$part" "$title" "$log"
	return 1
}

# suite TITLE JUNIT COMMAND...: counts the tests that JUNIT names. A run that
# ends badly or names none counts as one failure more.
suite() {
	local title=$1 junit=$2 log status=0 report numbers start=$SECONDS

	shift 2
	log=$work/$part-$title.log
	rm -f "$junit"
	timeout -k 30 1500 "$@" >"$log" 2>&1 || status=$?
	report=$("$venv/bin/python" "$top/scripts/count_tests.py" "$part" \
		"$junit" "$top/scripts/allowed-skips.txt") || report="0 0 0"
	read -r -a numbers <<<"$(tail -n 1 <<<"$report")"
	if { [ $status != 0 ] && [ "${numbers[1]}" = 0 ]; } ||
		[ $((numbers[0] + numbers[1])) = 0 ]; then
		numbers[1]=$((numbers[1] + 1))
		echo "  it ended with status $status"
	fi
	sed '$d' <<<"$report"
	if [ "${numbers[1]}" != 0 ]; then
		tail -n $tail "$log"
		echo "  all of it is in $log"
	fi
	count "${numbers[@]}"
	printf '%s: %s: %d passed, %d failed, %d skipped (%d s)\n' "$part" \
		"$title" "${numbers[@]}" $((SECONDS - start))
}

# build FOLDER OPTION...
build() {
	local folder=$work/$1

	shift
	check build build_in "$folder" "$@"
}

build_in() {
	local folder=$1

	shift
	cmake -S "$top" -B "$folder" -DCKPTFS_WERROR=ON "$@" &&
		cmake --build "$folder" -j "$jobs"
}

# unit_tests FOLDER OPTION...: with the fuzz targets over their corpus
unit_tests() {
	local folder=$1

	shift
	suite unit "$work/$part-unit.xml" "${fixed[@]}" ctest "$@" \
		--test-dir "$folder" --timeout 300 --output-on-failure \
		--test-output-size-passed 10000000 \
		--test-output-size-failed 10000000 \
		--output-junit "$work/$part-unit.xml" -j "$jobs"
}

# mount_tests FOLDER SANITIZER FOLDER-OR-OPTION...
mount_tests() {
	local folder=$1 sanitizer=$2

	shift 2
	suite mounts "$work/$part-mounts.xml" env -C "$top/tests" \
		"CKPTFS_BIN=$folder/ckptfs" "CKPTFS_SANITIZER=$sanitizer" \
		PYTHONDONTWRITEBYTECODE=1 "${fixed[@]}" "$venv/bin/python" \
		-m pytest -q --durations=10 --basetemp="$work/$part-tmp" \
		--junitxml="$work/$part-mounts.xml" "$@"
	rm -rf "$work/$part-tmp"
}

check_scripts() {
	local script

	for script in "$top"/scripts/*.sh "$top/.ci/run"; do
		bash -n "$script" || return 1
	done
	if command -v shellcheck >/dev/null; then
		shellcheck "$top"/scripts/*.sh "$top/.ci/run"
	fi
}

# References to other pages are not resolved: not every machine has them.
check_manual() {
	local faults

	faults=$(mandoc -Tlint -W style "$top/fs/ckptfs.1" 2>&1 |
		grep -v -e 'referenced manual not found' -e 'outdated mandoc.db')
	printf '%s\n' "$faults"
	[ -z "$faults" ]
}

check_install() {
	local prefix=$work/prefix page

	rm -rf "$prefix"
	cmake --install "$work/gcc" --prefix "$prefix" || return 1
	page=$(find "$prefix" -name 'ckptfs.1*') || return 1
	[ -n "$page" ] && mandoc "$page" | grep tensors >/dev/null || return 1
	"$prefix/bin/ckptfs" --version
}

part_static() {
	check layers "$top/scripts/check_layers.sh"
	check "layers self-test" "$top/scripts/check_layers.sh" --self-test
	check scripts check_scripts
	check manual check_manual
}

part_release() {
	build gcc -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Release || return
	unit_tests "$work/gcc"
	check install check_install
	CKPTFS_INSTALL_PREFIX=$work/prefix \
		mount_tests "$work/gcc" "" dcp fs
}

part_asan() {
	build asan -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=RelWithDebInfo \
		-DCKPTFS_SANITIZE=address || return
	unit_tests "$work/asan"
	mount_tests "$work/asan" address fs -m 'not heavy'
}

part_tsan() {
	build tsan -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=RelWithDebInfo \
		-DCKPTFS_SANITIZE=thread || return
	unit_tests "$work/tsan"
	mount_tests "$work/tsan" thread fs \
		-m 'concurrent and not heavy'
}

find_clang() { command -v clang-14 || command -v clang; }

part_fuzz() {
	if [ -z "$(find_clang)" ]; then
		echo "fuzz: there is no clang; the other parts run the corpus"
		return
	fi
	build fuzz -DCMAKE_C_COMPILER="$(find_clang)" \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo -DCKPTFS_FUZZERS=ON || return
	unit_tests "$work/fuzz" -R '^fuzz'
}

part_clang() {
	build clang -DCMAKE_C_COMPILER="$(find_clang)" -DCMAKE_BUILD_TYPE=Release ||
		return
	unit_tests "$work/clang"
}

part_soak() {
	build gcc -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Release || return
	CKPTFS_SOAK=${CKPTFS_SOAK:-600} mount_tests "$work/gcc" "" \
		fs/test_soak.py -rP
}

# No process of a binary that was built here, and no mount of one, may stay.
left_behind() {
	local entry exe found=0

	for entry in /proc/[0-9]*; do
		exe=$(readlink "$entry/exe" 2>/dev/null) || continue
		case $exe in
		"$work"/*)
			echo "still running: $exe, process ${entry#/proc/}"
			found=1
			;;
		esac
	done
	if grep -F " $work/" /proc/self/mountinfo; then
		found=1
	fi
	return $found
}

wanted=("$@")
[ $# -gt 0 ] || wanted=("${parts[@]}")
for part in "${wanted[@]}"; do
	case " ${parts[*]} ${more_parts[*]} " in
	*" $part "*) ;;
	*)
		sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' \
			"${BASH_SOURCE[0]}"
		[ "$part" = --help ] || [ "$part" = -h ]
		exit
		;;
	esac
done
mkdir -p "$work"
part=setup
check packages "$top/scripts/setup.sh" || {
	echo "0 passed, 1 failed"
	exit 1
}
passed=0
for part in "${wanted[@]}"; do
	"part_$part"
done
part=end
check "nothing left behind" left_behind
line="$passed passed, $failed failed"
[ $skipped = 0 ] || line="$line, $skipped skipped"
printf '\n%s\n' "$line"
[ "$failed" = 0 ] && [ "$passed" -gt 1 ]
