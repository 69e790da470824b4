#!/bin/sh
# After files are removed, by dpkg (remove, purge, upgrade, ...) and rpm (0 on erasing, 1 on upgrading).
# The state is what has been read, counted and not yet sent: only dpkg's purge, which asks for it, removes it. The account stays, as
# files of its may be anywhere.
set -e

if [ "$1" = purge ]; then
    rm -rf /var/lib/wok-exporter
    rm -f /etc/systemd/system/multi-user.target.wants/wok-exporter.service
fi
case "$1" in
0 | remove | purge) [ ! -d /run/systemd/system ] || systemctl daemon-reload ;;
esac
