#!/bin/sh
# Runs before files are removed, by dpkg (remove, upgrade NEW-VERSION) and rpm (0 on erase, 1 on
# upgrade). An upgrade restarts the service at its end; until then, the old one keeps running.
set -e

unit=wok-exporter.service
command -v systemctl >/dev/null || exit 0

case "$1" in
0 | remove) [ ! -d /run/systemd/system ] || systemctl stop $unit || true ;;
esac
# dpkg keeps the configuration until purge, and so whether a service is enabled.
[ "$1" != 0 ] || systemctl --no-reload disable $unit >/dev/null 2>&1 || true
