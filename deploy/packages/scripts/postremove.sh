#!/bin/sh
# Runs after files are removed, by dpkg (remove, purge, upgrade, ...) and rpm (0 on erase, 1 on
# upgrade). Only dpkg's purge removes the state (what was read, counted and queued). The user is
# kept, because files may belong to it.
set -e

if [ "$1" = purge ]; then
    rm -rf /var/lib/wok-exporter
    rm -f /etc/systemd/system/multi-user.target.wants/wok-exporter.service
fi
case "$1" in
0 | remove | purge) [ ! -d /run/systemd/system ] || systemctl daemon-reload ;;
esac
