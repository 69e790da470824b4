#!/bin/sh
# Runs before files are removed, by dpkg (remove, upgrade NEW-VERSION) and rpm (0 on erase, 1 on
# upgrade). An upgrade restarts the service at its end; until then, the old one keeps running.
set -e

# A wokd that the plug-in is linked into compiles it in its place, of which neither dpkg nor rpm knows.
case "$1" in
0 | remove)
    for compiled in /usr/share/wok-exporter/tasklog/__pycache__ /usr/share/wok-exporter/tasklog/*.pyc; do
        [ ! -e "$compiled" ] || rm -rf "$compiled"
    done
    ;;
esac

unit=wok-exporter.service
command -v systemctl >/dev/null || exit 0

case "$1" in
0 | remove) [ ! -d /run/systemd/system ] || systemctl stop $unit || true ;;
esac
# dpkg keeps the configuration until purge, and so whether a service is enabled.
[ "$1" != 0 ] || systemctl --no-reload disable $unit >/dev/null 2>&1 || true
