#!/bin/sh
# Makes the image's root file system by the same steps as the Containerfile and runs the service in it the way the
# documented command does: read-only, another user, no capability, no network but a loopback of its own, one volume.
#
# Needs no container engine, only bubblewrap and root; says "skipped" without them. What an engine adds (its system call
# filter, its cgroup limits) is not tried here.
set -eu
cd "$(dirname "$0")/.."
command -v bwrap >/dev/null 2>&1 || { echo "skipped: no bwrap here (apt-get install bubblewrap)"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "skipped: only root can make files of another user"; exit 0; }
[ -x target/package/lineproof ] || { echo "first: scripts/stage.sh" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sh packaging/container/rootfs.sh target/package "$work/root"
chmod 755 "$work"
mv "$work/root/var/lib/lineproof" "$work/data"
mkdir "$work/root/var/lib/lineproof"

# setpriv first: inside its own user namespace the process then has no identity but this one.
contained() {
    setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs --bounding-set=-all -- \
        bwrap --unshare-all --die-with-parent --new-session --cap-drop ALL --clearenv --setenv LINEPROOF_DATA /var/lib/lineproof \
        --ro-bind "$work/root" / --bind "$work/data" /var/lib/lineproof --proc /proc --dev /dev --chdir /var/lib/lineproof \
        /usr/bin/lineproof "$@"
}

echo "== files: $(find "$work/root" -type f | wc -l), $(du -sh "$work/root" | cut -f1)"
! find "$work/root" -name '*sh' -perm /111 -type f | grep . || { echo "FAILED: a shell"; exit 1; }
! find "$work/root" -perm /6000 | grep . || { echo "FAILED: set-user-id"; exit 1; }
contained init . --plant Trial --origin example.com/trial
contained demo --dir /var/lib/lineproof/demo "$@"
! contained init /elsewhere --plant Trial --origin example.com/trial 2>/dev/null || { echo "FAILED: the root is writable"; exit 1; }
echo "the image's files do what they should"
