#!/bin/sh
# Before files are removed, by dpkg (remove, upgrade NEW-VERSION) and rpm (0 on erasing, 1 on upgrading).
# An upgrade restarts the service when all is in place: until then the old one goes on.
set -e

unit=wok-exporter.service
command -v systemctl >/dev/null || exit 0

case "$1" in
0 | remove) [ ! -d /run/systemd/system ] || systemctl stop $unit || true ;;
esac
# dpkg keeps what is configured until it is told to purge, and whether a service is enabled is among that.
[ "$1" != 0 ] || systemctl --no-reload disable $unit >/dev/null 2>&1 || true
