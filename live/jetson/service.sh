#!/usr/bin/env bash
# Start the live loop and its page at every boot: live/jetson/service.sh [--print | --dry-run] MODEL [OPTIONS]
#
#   --print     only print the unit file
#   --dry-run   print every command, and change nothing
#   MODEL       the ONNX file; it is copied to /var/lib/teachcam/model.onnx
#   OPTIONS     of live/run.py (default: --camera csi:0 --http 8080)
#
# Run it again to change the model or the options. To remove it: sudo systemctl disable --now teachcam

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

state=/var/lib/teachcam
unit=/etc/systemd/system/teachcam.service

main() {
    local print=''
    while [ $# -gt 0 ]; do
        case "$1" in
            --print) print=1 ;;
            --dry-run) dry_run=1 ;;
            -h | --help) print_help "${BASH_SOURCE[0]}" && exit 0 ;;
            -*) die "$1 is not an option of service.sh: give MODEL first, then the options of live/run.py" ;;
            *) break ;;
        esac
        shift
    done
    [ $# -gt 0 ] || die "give the ONNX file of the model (--help says more)"
    local model=$1
    shift
    [ $# -gt 0 ] || set -- --camera csi:0 --http 8080
    [ -f "$model" ] || die "there is no file $model"
    [ -x "$venv/bin/python" ] || die "there is no $venv/bin/python: run live/jetson/install.sh first"
    case "$project$venv" in *[[:space:]:%\$]*) die "systemd can't take this path: move the project to a plain one" ;; esac
    if [ -n "$print" ]; then
        print_unit "$@"
        return
    fi
    command -v systemctl >/dev/null || die "this machine has no systemd"
    if ! id teachcam >/dev/null 2>&1; then
        say "Making the user teachcam, who may do nothing but open cameras and the GPU:"
        run_as_root useradd --system --user-group --home-dir "$state" --shell /usr/sbin/nologin teachcam
    fi
    say "Copying the model to $state, where the service keeps what it writes:"
    run_as_root install -d -m 700 -o teachcam -g teachcam "$state"
    run_as_root install -m 644 -o teachcam -g teachcam "$model" "$state/model.onnx"
    say "Writing $unit:"
    local filled
    filled=$(mktemp)
    print_unit "$@" >"$filled"
    run_as_root install -m 644 "$filled" "$unit"
    rm "$filled"
    say "Starting it now and at every boot. The first start with TensorRT takes minutes:"
    run_as_root systemctl daemon-reload
    run_as_root systemctl enable teachcam
    run_as_root systemctl restart --no-block teachcam
    say "To see what it does, and the address of its page: journalctl -fu teachcam"
}

# Print the unit file with this project's folder, this board's devices and the options of live/run.py filled in.
print_unit() {
    local text options='' devices='' groups=video device option version
    text=$(<"$project/live/jetson/teachcam.service")
    # JetPack 4.6's systemd 237 can't start a service with these lines. It has to do without them.
    version=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p' || true)
    if [ "${version:-240}" -lt 240 ]; then
        text=$(grep -v -E '^(ProtectHome|BindReadOnlyPaths|PrivateTmp)=' <<<"$text")
    fi
    for option in "$@"; do options+=" $(quote_for_systemd "$option")"; done
    for device in "$root"/dev/{nvhost*,nvmap,nvgpu/*/*,nvidia*,nvsciipc,dri/*}; do
        [ ! -e "$device" ] || [ -d "$device" ] || devices+="DeviceAllow=${device#"$root"} rw"$'\n'
    done
    if getent group render >/dev/null; then groups+=" render"; fi
    text=${text//@PROJECT@/"$project"}
    text=${text//@VENV@/"$venv"}
    text=${text//@OPTIONS@/"${options# }"}
    text=${text//@GROUPS@/"$groups"}
    printf '%s\n' "${text//@DEVICES@$'\n'/"$devices"}"
}

# Quote one argument of ExecStart=.
quote_for_systemd() {
    local text=$1
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//%/%%}
    text=${text//\$/\$\$}
    printf '"%s"' "$text"
}

main "$@"
