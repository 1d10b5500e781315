#!/bin/sh
# Boots a small Debian with its own systemd, installs the package there, and lives through what an operator does with it:
# install, init, start, inspect, crash, upgrade, remove, purge, install again. Nothing of this machine is changed.
#
#   scripts/check-package-booted.sh target/debian/lineproof_VERSION_amd64.deb
#
# Needs root, systemd-nspawn and debootstrap; says "skipped" without them. Debian's files are fetched once, into
# .cache/debian-root, and never written to again.
set -eu
cd "$(dirname "$0")/.."
package=${1:?the package to try}

for tool in systemd-nspawn debootstrap; do
    command -v $tool >/dev/null 2>&1 || { echo "skipped: no $tool here (apt-get install systemd-container debootstrap)"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: only root can boot it"; exit 0; }

root=$PWD/.cache/debian-root
if [ ! -e "$root/made" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,adduser,libstdc++6,procps bookworm "$root" >&2
    touch "$root/made"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$package" "$work/lineproof.deb"
cp packaging/booted-trial.sh "$work/trial.sh"
cat >"$work/trial.service" <<'UNIT'
[Unit]
Description=The trial of the package
After=basic.target dbus.service

[Service]
Type=oneshot
ExecStart=/bin/sh /trial/trial.sh
StandardOutput=file:/trial/report
StandardError=inherit
ExecStopPost=/bin/systemctl poweroff --no-block
UNIT

# The overlay takes every write; only the report comes out.
timeout 180 systemd-nspawn --quiet --directory="$root" --volatile=overlay --register=no --keep-unit --private-network \
    --bind="$work:/trial" --bind-ro="$work/trial.service:/etc/systemd/system/trial.service" \
    --boot systemd.wants=trial.service >"$work/console" 2>&1 </dev/null || true
[ -s "$work/report" ] || { tail -20 "$work/console"; echo "the small Debian did not boot"; exit 1; }
cat "$work/report"
grep -q '^the package does what it should$' "$work/report"
