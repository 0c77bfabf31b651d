# SPDX-License-Identifier: Apache-2.0
# Completion of ckptfs for bash: commands, options, mount options, files.

# Words that begin as the one at hand does; what ends in = gets no blank.
_ckptfs_words() {
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
	if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
		compopt -o nospace 2>/dev/null
	fi
}

_ckptfs_files() {
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
}

# What may follow OPTION=, or OPTION and a blank; false: nothing is known.
_ckptfs_value() {
	case $1 in
	--dtype) _ckptfs_words "bf16 f16 f32" ;;
	--max-shard-size) _ckptfs_words "1GB 5GB 10GB" ;;
	--timeout) _ckptfs_words "10 60 600" ;;
	--decoded-cache) _ckptfs_words "512M 1G 4G" ;;
	--select | --top) COMPREPLY=() ;;
	*) return 1 ;;
	esac
}

# A list with commas: the last of it is completed, the rest stays in front.
_ckptfs_mount_options() {
	local front=

	[[ $cur != *,* ]] || front=${cur%,*},
	cur=${cur##*,}
	_ckptfs_words "decoded_cache= hf_root= hf_assets= log= fsname= \
		deadline= force_mpi allow_other allow_root auto_unmount default_permissions"
	COMPREPLY=("${COMPREPLY[@]/#/$front}")
	compopt -o nospace 2>/dev/null
}

_ckptfs_mount_value() {
	case ${1##*,} in
	decoded_cache) _ckptfs_words "512M 1G 4G" ;;
	deadline) _ckptfs_words "5 10 30" ;;
	hf_assets) _ckptfs_files -d ;;
	log) _ckptfs_files -f ;;
	*) COMPREPLY=() ;;
	esac
}

_ckptfs_command() {
	local options="--help --decoded-cache="

	case $1 in
	ls) options+=" -l --shards --json" ;;
	verify) options+=" --quick --json" ;;
	export)
		options+=" --safetensors --hf --npy --select= --top= --dtype="
		options+=" --max-shard-size= --json"
		;;
	diff) options+=" --values --select= --json --quiet -q" ;;
	stat) options+=" --json" ;;
	esac
	if [[ $cur == -* ]]; then
		_ckptfs_words "$options"
	else
		_ckptfs_files -f
	fi
}

_ckptfs() {
	local commands="ls verify export diff stat"
	local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
	local command=${COMP_WORDS[1]} value=

	COMPREPLY=()
	# Bash takes = for a word of its own.
	if [[ $before == = ]]; then
		before=${COMP_WORDS[COMP_CWORD - 2]}
		value=1
	elif [[ $cur == = ]]; then
		cur=
		value=1
	fi
	if [[ $COMP_CWORD == 1 && $cur == -* ]]; then
		_ckptfs_words "-f -d -o -h -V --help --version --wait"
	elif [[ $COMP_CWORD == 1 ]]; then
		_ckptfs_files -d
		mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY \
			< <(compgen -W "$commands" -- "$cur")
	elif [[ " $commands " == *" $command "* ]]; then
		_ckptfs_value "$before" || _ckptfs_command "$command"
	elif [[ $command == --wait && $before == --timeout ]]; then
		_ckptfs_value "$before"
	elif [[ $command == --wait && $cur == -* ]]; then
		_ckptfs_words "--timeout"
	elif [[ $before == -o || ($value && $cur == *,*) ]]; then
		_ckptfs_mount_options
	elif [[ $value ]]; then
		_ckptfs_mount_value "$before"
	elif [[ $cur == -* ]]; then
		_ckptfs_words "-f -d -o"
	else
		_ckptfs_files -d
	fi
}

complete -F _ckptfs ckptfs
