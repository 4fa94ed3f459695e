# shellcheck shell=bash
# What install.sh, demo.sh and service.sh share. It is sourced.

# These three are read by the scripts that source this file.
# shellcheck disable=SC2034
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${TEACHCAM_VENV:-$project/.venv}
root=${TEACHCAM_ROOT:-} # tests put the files of a Jetson there
dry_run=

# Tell what comes next.
say() {
    printf '%s\n' "$*"
}

# Give up with one line and exit code 2: the user can mend it.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Print a command, and run it unless this is a dry run.
run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    [ -n "$dry_run" ] || "$@"
}

# The same, as root.
run_as_root() {
    if [ "$(id -u)" = 0 ]; then run "$@"; else run sudo "$@"; fi
}

# Print the comment at the top of a script, for --help.
print_help() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$1"
}
