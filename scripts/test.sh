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
#   asan      the same under AddressSanitizer and UBSan, but for heavy tests on
#             mounts, and those that run what the unit tests run as well
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
#
# Each step says when it starts and about how long it will take: as long as the
# last time, in build/test/times, or else as on a machine of two cores.
set -uo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${CKPTFS_BUILD:-$top/build}/test
venv=${CKPTFS_VENV:-$top/.venv}
jobs=$(nproc)
# Tests wait for each other's daemons more than they compute.
tests_at_once=$((2 * jobs))
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

# Seconds of each step on two cores; those of the last run come over them.
declare -A usual=(
	[static checks]=5
	[release build]=60 [release unit]=60 [release mounts]=220
	[asan build]=90 [asan unit]=60 [asan mounts]=150
	[tsan build]=70 [tsan unit]=110 [tsan mounts]=30
	[fuzz build]=30 [fuzz unit]=5
	[clang build]=60 [clang unit]=60
	[soak build]=60 [soak mounts]=610
)
times=$work/times
known=0 scale=100

# How much of the log of what failed is printed. Where the log itself is lost
# afterwards, all of it is worth having.
tail=20
[ -z "${CI-}" ] || tail=100000

count() {
	passed=$((passed + $1))
	failed=$((failed + $2))
	skipped=$((skipped + $3))
}

# begin STEP: say that it starts, and how long it may take.
begin() {
	began=$SECONDS
	printf '%s: %s: started, about %d s\n' "$part" "$1" \
		$((${usual[$part $1]:-1} * scale / 100))
}

# end STEP: keep its time. That of the first build tells how fast a machine is
# on which nothing was run yet.
end() {
	local took=$((SECONDS - began)) usually=${usual[$part $1]:-1}

	if [ $known = 0 ] && [ "$1" = build ]; then
		scale=$((100 * took / usually + 10))
		known=1
	fi
	printf '%s %s %d\n' "$part" "$1" "$took" >>"$times.new"
}

# Times of steps that do not run now are kept.
read_times() {
	local of step seconds

	[ -f "$times" ] || return 0
	known=1
	while read -r of step seconds; do
		usual[$of $step]=$seconds
	done <"$times"
}

write_times() {
	cat "$times.new" >>"$times"
	tac "$times" | sort -u -k 1,2 -s >"$times.new"
	mv "$times.new" "$times"
}

# About how long the wanted parts take together.
sum_of() {
	local sum=0 of step

	for of; do
		for step in "${!usual[@]}"; do
			[ "${step%% *}" != "$of" ] ||
				sum=$((sum + usual[$step]))
		done
	done
	echo $sum
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
	local title=$1 junit=$2 log status=0 report numbers

	shift 2
	log=$work/$part-$title.log
	rm -f "$junit"
	begin "$title"
	timeout -k 30 3600 "$@" >"$log" 2>&1 || status=$?
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
		"$title" "${numbers[@]}" $((SECONDS - began))
	end "$title"
}

# build FOLDER TARGET OPTION...
build() {
	begin build
	check build build_in "$work/$1" "${@:2}" || return
	end build
}

build_in() {
	local folder=$1 target=$2

	shift 2
	cmake -S "$top" -B "$folder" -DCKPTFS_WERROR=ON "$@" &&
		cmake --build "$folder" -j "$jobs" --target "$target"
}

# unit_tests FOLDER OPTION...: with the fuzz targets over their corpus
unit_tests() {
	local folder=$1

	shift
	suite unit "$work/$part-unit.xml" "${fixed[@]}" ctest "$@" \
		--test-dir "$folder" --timeout 600 --output-on-failure \
		--test-output-size-passed 10000000 \
		--test-output-size-failed 10000000 \
		--output-junit "$work/$part-unit.xml" -j "$tests_at_once"
}

# How many processes run tests on mounts: each may need 1.5 GB.
count_workers() {
	local room

	room=$(awk '/^MemAvailable:/ { print int($2 / 1500000) }' /proc/meminfo)
	[ "$room" -ge 1 ] || room=1
	echo $((room < tests_at_once ? room : tests_at_once))
}

# mount_tests FOLDER SANITIZER FOLDER-OR-OPTION...
mount_tests() {
	local folder=$1 sanitizer=$2

	shift 2
	suite mounts "$work/$part-mounts.xml" env -C "$top/tests" \
		"CKPTFS_BIN=$folder/ckptfs" "CKPTFS_SANITIZER=$sanitizer" \
		PYTHONDONTWRITEBYTECODE=1 "${fixed[@]}" "$venv/bin/python" \
		-m pytest -q --durations=10 --basetemp="$work/$part-tmp" \
		-n "$(count_workers)" --dist loadgroup \
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
	begin checks
	check layers "$top/scripts/check_layers.sh"
	check "layers self-test" "$top/scripts/check_layers.sh" --self-test
	check scripts check_scripts
	check manual check_manual
	end checks
}

part_release() {
	build gcc all -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Release ||
		return
	unit_tests "$work/gcc"
	check install check_install
	CKPTFS_INSTALL_PREFIX=$work/prefix \
		mount_tests "$work/gcc" "" dcp fs
}

part_asan() {
	build asan all -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=RelWithDebInfo \
		-DCKPTFS_SANITIZE=address || return
	unit_tests "$work/asan"
	mount_tests "$work/asan" address fs -m 'not heavy'
}

part_tsan() {
	build tsan all -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=RelWithDebInfo \
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
	build fuzz fuzz_targets -DCMAKE_C_COMPILER="$(find_clang)" \
		-DCMAKE_BUILD_TYPE=RelWithDebInfo -DCKPTFS_FUZZERS=ON || return
	unit_tests "$work/fuzz" -R '^fuzz'
}

part_clang() {
	build clang all -DCMAKE_C_COMPILER="$(find_clang)" \
		-DCMAKE_BUILD_TYPE=Release || return
	unit_tests "$work/clang"
}

part_soak() {
	build gcc all -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Release ||
		return
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
: >"$times.new"
read_times
printf 'all of it: started, about %d s\n' "$(sum_of "${wanted[@]}")"
start=$SECONDS
for part in "${wanted[@]}"; do
	"part_$part"
done
write_times
part=end
check "nothing left behind" left_behind
printf 'all of it: ended after %d s\n' $((SECONDS - start))
line="$passed passed, $failed failed"
[ $skipped = 0 ] || line="$line, $skipped skipped"
printf '\n%s\n' "$line"
[ "$failed" = 0 ] && [ "$passed" -gt 1 ]
