#!/bin/sh
# Makes the image's whole root file system: the program, ONNX Runtime, the system libraries these two load, certificate
# authorities, one user. No shell, no package manager, nothing else.
#
#   packaging/container/rootfs.sh PACKAGE ROOT     PACKAGE is target/package/, as scripts/stage.sh makes it
#
# Runs in the first stage of the Containerfile, and the same in scripts/check-container.sh.
set -eu
package=$1
root=$2

mkdir -p "$root/usr/lib/lineproof" "$root/usr/bin" "$root/usr/share/doc/lineproof" "$root/etc/ssl/certs" "$root/proc" \
    "$root/dev" "$root/tmp" "$root/var/lib/lineproof"
install -m 755 "$package/lineproof" "$root/usr/lib/lineproof/lineproof"
install -m 644 "$package"/libonnxruntime.so.* "$root/usr/lib/lineproof/"
install -m 644 "$package"/NOTICES.* "$package"/LICENSE.* "$root/usr/share/doc/lineproof/"
ln -s ../lib/lineproof/lineproof "$root/usr/bin/lineproof"

# The loader and what the program and ONNX Runtime name as needed, each at the path where it is looked for.
for file in "$package/lineproof" "$package"/libonnxruntime.so.*; do
    ldd "$file" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'
done | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done

# Used where a witness or a backup store is reached over TLS.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo "lineproof:x:65532:65532:Lineproof inspection service:/var/lib/lineproof:/nonexistent" >"$root/etc/passwd"
echo "lineproof:x:65532:" >"$root/etc/group"
chmod 1777 "$root/tmp"
chmod 700 "$root/var/lib/lineproof"
chown -R 65532:65532 "$root/var/lib/lineproof"
