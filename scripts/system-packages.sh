#!/bin/sh
# Installs what `npm run test:system` needs and this machine lacks. For root on Debian; a line for each package, with the program
# or the library that it is wanted for.
set -eu

while read -r program package; do
  [ -e "$program" ] || command -v "$program" >/dev/null || missing="${missing:-} $package"
done <<LIST
docker-registry docker-registry
keytool default-jre-headless
promtool prometheus
strace strace
qemu-aarch64-static qemu-user-static
/usr/aarch64-linux-gnu/lib/libstdc++.so.6 libstdc++6-arm64-cross
/usr/aarch64-linux-gnu/lib/libatomic.so.1 libatomic1-arm64-cross
LIST

[ -n "${missing:-}" ] || exit 0
apt-get update --quiet
# shellcheck disable=SC2086 # One word for each package.
apt-get install --yes --no-install-recommends $missing
