#!/usr/bin/env bash
# Runs live/jetson/install.sh, demo.sh and service.sh, each twice, in a Debian of its own in build/jetson, with systemd.
# Only what a Jetson alone has is made up: the release file, the board's name, two packages of NVIDIA's, and trtexec.
# Debian's OpenCV stands for JetPack's: it is a system package with GStreamer, built for NumPy 1.
# Needs Debian or Ubuntu, root, mmdebstrap and systemd-container. Takes five minutes and 4 GB; three when it is run again.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$PWD/build/jetson
root=$build/root
mkdir -p "$build"
[ -e "$build/debian.tar" ] || mmdebstrap --variant=minbase bookworm "$build/debian.tar.part" --format=tar \
    --include=python3,python3-opencv,sudo,ca-certificates,systemd,systemd-sysv,dbus,procps
[ -e "$build/debian.tar" ] || mv "$build/debian.tar.part" "$build/debian.tar"
rm -rf "$root"
mkdir "$root"
tar -C "$root" -xf "$build/debian.tar"

# What a Jetson Orin Nano with JetPack 6.2 has.
mkdir -p "$root/jetson/proc/device-tree" "$root/jetson/dev"
ln -s /etc /var "$root/jetson/"
printf 'NVIDIA Jetson Orin Nano Developer Kit\0' >"$root/jetson/proc/device-tree/model"
echo '# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64' >"$root/etc/nv_tegra_release"
touch "$root/jetson/dev/nvmap" "$root/jetson/dev/nvhost-gpu"
for package in nvidia-l4t-core:36.4.3-20250107174145 nvidia-jetpack:6.2+b77; do
    mkdir -p "$build/deb/DEBIAN"
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: a test\nDescription: a stand-in\n' \
        "${package%%:*}" "${package#*:}" >"$build/deb/DEBIAN/control"
    dpkg-deb --build "$build/deb" "$root/stand-in.deb" >/dev/null
    chroot "$root" dpkg --install /stand-in.deb
done
mkdir -p "$root/usr/src/tensorrt/bin"
cat >"$root/usr/src/tensorrt/bin/trtexec" <<'END'
#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # $0 $*"
for option in "$@"; do case "$option" in --saveEngine=*) echo engine >"${option#*=}" ;; esac; done
END
chmod +x "$root/usr/src/tensorrt/bin/trtexec"

# A user who may become root, the project, and this machine's certificates and package indexes.
chroot "$root" useradd --create-home --shell /bin/bash jetson
echo jetson >"$root/etc/hostname"
echo '127.0.0.1 localhost jetson' >"$root/etc/hosts"
chmod 750 "$root/home/jetson" # as on Ubuntu 22.04
echo 'jetson ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/jetson"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mkdir "$root/home/jetson/teachcam"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -c |
    tar -C "$root/home/jetson/teachcam" -x
chroot "$root" chown -R jetson: /home/jetson

container=(systemd-nspawn --quiet --directory "$root" --hostname=jetson --register=no --keep-unit)
on_jetson() {
    "${container[@]}" --as-pid2 --pipe --resolv-conf=copy-host --user jetson --chdir /home/jetson/teachcam \
        --setenv=TEACHCAM_ROOT=/jetson --setenv=PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$@" </dev/null
}

# Run a command twice. It must end with the same code, and its last lines must be the same but for numbers.
# (One line is systemd-nspawn's own, about its temporary folder.)
twice() {
    local code=$1 lines=$2 run ended
    shift 2
    for run in 1 2; do
        echo "== run $run: $*"
        ended=0
        on_jetson "$@" 2>&1 | grep -v '^Attempted to remove disk' | tee "$build/run$run.log" || ended=$?
        [ "$ended" = "$code" ] || { echo "FAILED: it ended with $ended, not $code" && exit 1; }
        tail -n "$lines" "$build/run$run.log" | sed 's/[0-9.]\+//g' >"$build/end$run.log"
    done
    diff "$build/end1.log" "$build/end2.log" || { echo "FAILED: it ended differently" && exit 1; }
}

twice 0 10 env TEACHCAM_ROOT=/no-jetson TEACHCAM_VENV=/home/jetson/plain live/jetson/install.sh
twice 0 12 live/jetson/install.sh
on_jetson .venv/bin/python -c 'import cv2, sys; assert not cv2.__file__.startswith(sys.prefix), cv2.__file__'
on_jetson .venv/bin/python teach/teach.py --camera synthetic --label thumbs_up palm --place lab --delay 0 --max-frames 3
on_jetson .venv/bin/python -c 'import pathlib; [p.rename("model.onnx") for p in pathlib.Path("runs").glob("2*/model.onnx")]'
twice 0 1 live/jetson/demo.sh --camera synthetic --model model.onnx -- --http 8790 --max-frames 30
on_jetson find . -maxdepth 1 -name 'model-*-trt100300-*.engine' | grep .
twice 130 1 timeout --preserve-status --signal=INT 15 live/jetson/demo.sh --camera synthetic --teach -- --http 8792

# Boot it, and let it check its service.
cat >"$root/check.sh" <<'END'
set -euo pipefail
cd /home/jetson/teachcam
state() { systemctl show --value --property "$1" teachcam; }
wait_for() { for _ in $(seq 120); do if "$@"; then return; fi; sleep 1; done; systemctl status teachcam || true; false; }
runs() { [ "$(systemctl is-active teachcam)" = active ]; }
opens() { python3 -c 'import urllib.request as r; assert b"<html" in r.urlopen("http://127.0.0.1:8791").read()'; }
for run in 1 2; do
    echo "== service, run $run"
    sudo -u jetson env TEACHCAM_ROOT=/jetson live/jetson/service.sh model.onnx --camera synthetic --http 8791
    wait_for runs
    wait_for opens
    echo "it runs as $(ps -o user= -p "$(state MainPID)"), and its page opens"
done
sudo systemd-analyze security --no-pager teachcam | tail -1
pid=$(state MainPID)
ls -ld "/proc/$pid/root/home/jetson" "/proc/$pid/root/home/jetson/teachcam"
echo "== it hangs: the watchdog restarts it"
kill -STOP "$pid"
restarted() { [ "$(state NRestarts)" = 1 ] && runs; }
wait_for restarted # 60 s of WatchdogSec=, 10 s of RestartSec=, and the start
echo "restarted: $pid, now $(state MainPID)"
echo "== stop"
systemctl stop teachcam
echo "$(systemctl is-active teachcam || true), $(state Result), $(state ExecMainStatus)"
[ "$(state Result)" = success ]
ls -l /var/lib/teachcam
touch /passed
END
cat >"$root/etc/systemd/system/check.service" <<'END'
[Service]
Type=oneshot
ExecStart=/bin/bash /check.sh
ExecStopPost=/bin/systemctl poweroff --no-block
StandardOutput=file:/check.log
StandardError=file:/check.log
[Install]
WantedBy=multi-user.target
END
ln -s ../check.service "$root/etc/systemd/system/multi-user.target.wants/"
timeout 600 "${container[@]}" --boot --console=pipe </dev/null >"$build/boot.log" 2>&1 || true
cat "$root/check.log"
[ -e "$root/passed" ] || { echo "FAILED: the service, see above and $build/boot.log" && exit 1; }
echo "all passed"
