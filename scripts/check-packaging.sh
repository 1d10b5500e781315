#!/bin/sh
# The unit is valid, and exposes no more than docs/packaging.md says. Says "skipped" without systemd-analyze.
set -eu
cd "$(dirname "$0")/.."
# Of 10.0, in tenths, by systemd 252: `systemd-analyze security --offline=true` on the unit.
exposure_max=10

command -v systemd-analyze >/dev/null 2>&1 || { echo "unit: skipped, no systemd-analyze here"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# `verify` wants the program to be there, and on a machine that builds it is not.
sed 's|^ExecStart=/usr/bin/lineproof|ExecStart=/bin/true|' packaging/systemd/lineproof.service >"$work/lineproof.service"
sed "s|^\[Service\]|&\nExecStart=/bin/true|" packaging/systemd/accelerator.conf >"$work/accelerator.service"

# It says on standard error what it does not understand, also where it exits 0.
complaints=$(systemd-analyze verify --man=no "$work/lineproof.service" "$work/accelerator.service" 2>&1 |
    grep -F "$work" || true)
[ -z "$complaints" ] || { echo "$complaints"; exit 1; }

if ! systemd-analyze security --offline=true --no-pager --threshold="$exposure_max" "$work/lineproof.service" >"$work/security"; then
    grep '✗' "$work/security"
    echo "the unit exposes more than $exposure_max tenths: $(tail -1 "$work/security")"
    exit 1
fi
echo "unit: valid; $(tail -1 "$work/security" | sed 's/^[^A-Za-z]*//')"
