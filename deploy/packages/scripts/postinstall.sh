#!/bin/sh
# Runs after files are unpacked, by dpkg (configure OLD-VERSION, abort-...) and rpm (1 on install, 2
# on upgrade).
set -e

unit=wok-exporter.service
# Without systemd, there is no service and no need for its user. The program works nevertheless.
command -v systemctl >/dev/null || exit 0

systemd-sysusers wok-exporter.conf

# Apply the host's policy for new services: Debian enables them, Red Hat and its derivatives do not.
if [ "$1" = 1 ] || { [ "$1" = configure ] && [ -z "$2" ]; }; then
    systemctl --no-reload preset $unit >/dev/null 2>&1 || true
fi

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload

# A service that does not start must not leave the package half installed.
case "$1" in
1) ! systemctl --quiet is-enabled $unit || systemctl start $unit || true ;;
[0-9]*) systemctl try-restart $unit || true ;;
*) deb-systemd-invoke restart $unit || true ;; # respects policy-rc.d, and leaves a disabled service stopped
esac
