#!/bin/sh
# After files are unpacked, by dpkg (configure OLD-VERSION, abort-...) and rpm (1 on installing, 2 on upgrading).
set -e

unit=wok-exporter.service
# Without systemd there is no service, and nobody that it would have to run as: the program works all the same.
command -v systemctl >/dev/null || exit 0

systemd-sysusers wok-exporter.conf

# What the host's policy for new services says: Debian enables them, the relatives of Red Hat do not.
if [ "$1" = 1 ] || { [ "$1" = configure ] && [ -z "$2" ]; }; then
    systemctl --no-reload preset $unit >/dev/null 2>&1 || true
fi

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload

# A service that does not start is the administrator's to mend, not a reason to leave a package half installed.
case "$1" in
1) ! systemctl --quiet is-enabled $unit || systemctl start $unit || true ;;
[0-9]*) systemctl try-restart $unit || true ;;
*) deb-systemd-invoke restart $unit || true ;; # honours policy-rc.d, leaves alone what is disabled
esac
