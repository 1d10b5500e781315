#!/bin/sh
# Runs inside the small Debian of scripts/check-package-booted.sh, as root: the life of the package, step by step.
set -eu

data=/var/lib/lineproof
as_lineproof() { setpriv --reuid=lineproof --regid=lineproof --clear-groups --reset-env -- "$@"; }
step() { echo "== $*"; }
fail() {
    echo "FAILED: $*"
    systemctl status lineproof --no-pager --lines=30 || true
    exit 1
}
pid() { systemctl show lineproof --property=MainPID --value; }
# The service listens when its operator's socket answers.
listening() {
    for _ in $(seq 100); do
        as_lineproof lineproof history --data $data --limit 1 >/dev/null 2>&1 && [ -S $data/office.sock ] && return
        sleep 0.2
    done
    fail "the service does not answer"
}
# What /proc says of the running service: field $1 is $2.
holds() { grep -qE "^$1:[[:space:]]+$2\$" "/proc/$(pid)/status" || fail "$1 is not $2: $(grep "^$1:" "/proc/$(pid)/status")"; }

step install
dpkg --install /trial/lineproof.deb
[ "$(stat -c '%U %a' $data)" = "lineproof 700" ] || fail "the state directory: $(stat -c '%U %a' $data)"
systemctl is-enabled --quiet lineproof || fail "not enabled"
! systemctl is-active --quiet lineproof || fail "it runs without a data directory"

step init and start
as_lineproof lineproof init $data --plant Trial --origin example.com/trial
systemctl start lineproof
listening

step the limits that the kernel says it has
systemd-analyze security lineproof --no-pager | tail -1
holds NoNewPrivs 1
holds Seccomp 2
holds CapBnd 0+
holds CapEff 0+
grep -qE '^Max core file size +0 +0' "/proc/$(pid)/limits" || fail "core dumps"
grep -qE '^Max open files +16384' "/proc/$(pid)/limits" || fail "$(grep "open files" "/proc/$(pid)/limits")"
mounted() { awk -v at="$1" '$5 == at { print $6 }' "/proc/$(pid)/mountinfo" | tail -1; }
case $(mounted /) in ro*) ;; *) fail "the root is writable: $(mounted /)" ;; esac
case $(mounted $data) in rw*) ;; *) fail "the state directory is not writable: $(mounted $data)" ;; esac

step inspect
as_lineproof lineproof camera simulate --parts 40 --quiet
as_lineproof lineproof history --data $data --limit 3
as_lineproof lineproof model check $data/models/machined-surface/1.1.0/model.onnx
as_lineproof lineproof export --data $data --out $data/trial.zip
as_lineproof lineproof verify $data/trial.zip --key $data/log.vkey

step kill -9: started again by itself
first=$(pid)
kill -9 "$first"
for _ in $(seq 50); do [ "$(pid)" != "$first" ] && [ "$(pid)" != 0 ] && break; sleep 0.2; done
[ "$(pid)" != "$first" ] || fail "not started again"
listening

step an upgrade lets it run on
running=$(pid)
dpkg --install /trial/lineproof.deb
[ "$(pid)" = "$running" ] || fail "the upgrade stopped the line"
as_lineproof lineproof camera simulate --parts 20 --run b --first-counter 1000 --quiet

step stop
systemctl stop lineproof
[ "$(systemctl show lineproof --property=Result --value)" = success ] || fail "it did not stop well"
as_lineproof lineproof fsck --data $data

step remove and purge keep the evidence
systemctl start lineproof
listening
dpkg --remove lineproof
! pgrep -u lineproof >/dev/null || fail "it runs after its removal"
dpkg --purge lineproof
[ -f $data/keys/log.key ] || [ -d $data/keys ] || fail "purge took the keys"
[ -f $data/log/checkpoint ] || fail "purge took the log"
getent passwd lineproof >/dev/null || fail "purge took the owner of the evidence"

step install again: the log goes on
dpkg --install /trial/lineproof.deb
listening
as_lineproof lineproof camera simulate --parts 20 --run c --first-counter 2000 --quiet
systemctl stop lineproof
as_lineproof lineproof fsck --data $data

step purge with nothing there takes folder and user
rm -r $data
dpkg --purge lineproof
[ ! -e $data ] || fail "an empty folder stays"
! getent passwd lineproof >/dev/null || fail "the user stays"

echo "the package does what it should"
