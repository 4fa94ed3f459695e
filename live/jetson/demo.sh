#!/usr/bin/env bash
# Check this machine, build the model's TensorRT engine, and classify what the camera sees.
#
#   live/jetson/demo.sh                         # the newest model in runs/, and the camera csi:0
#   live/jetson/demo.sh --camera 0 --model model.onnx
#   live/jetson/demo.sh --teach                 # no model: teach one here, on a web page
#   live/jetson/demo.sh -- --record out.mp4     # what follows -- goes to live/run.py, or teach/studio.py
#
# Without a screen it serves a web page on port 8080, for this machine only. For others: -- --http 0.0.0.0:8080

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

live_options=(--tune) # options for live/run.py that every Jetson gets

camera=csi:0 model='' teach=''
while [ $# -gt 0 ]; do
    case "$1" in
        --camera | --model) [ $# -gt 1 ] || die "$1 needs a value" ;;&
        --camera) camera=$2 && shift ;;
        --model) model=$2 && shift ;;
        --teach) teach=1 ;;
        --) shift && break ;;
        -h | --help) print_help "${BASH_SOURCE[0]}" && exit 0 ;;
        *) die "$1 is not an option of demo.sh (--help lists them)" ;;
    esac
    shift
done
python=$venv/bin/python
[ -x "$python" ] || die "there is no $python: run live/jetson/install.sh first"
[ -z "$model" ] || [ -f "$model" ] || die "there is no file $model"
if [ -z "$model$teach" ]; then
    for file in runs/*/model.onnx; do
        if [ -f "$file" ] && [ "$file" -nt "$model" ]; then model=$file; fi
    done
fi

say "Checking this machine:"
run "$python" "$project/live/doctor.py" --camera "$camera" ${model:+--model "$model"} ||
    die "mend the errors above first"

if [ -z "$model" ]; then
    [ -n "$teach" ] || say "There is no model here yet: no --model, and none in runs/."
    say "Teach the camera on this page. 'Use it on another device' there writes the model that demo.sh runs the next time:"
    run exec "$python" "$project/teach/studio.py" --camera "$camera" --tune "$@"
fi

if command -v trtexec /usr/src/tensorrt/bin/trtexec >/dev/null; then
    say "Building the TensorRT engine for programs of your own. This takes minutes, once for each model:"
    run "$python" "$project/export/engine.py" "$model" || say "No engine was built. The live loop needs none."
else
    say "trtexec is not installed, so no engine is built."
fi

if [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    live_options+=(--headless --http 8080)
fi
say "Classifying. Press Ctrl-C to stop:"
run exec "$python" "$project/live/run.py" --camera "$camera" --model "$model" "${live_options[@]}" "$@"
