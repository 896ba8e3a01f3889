#!/bin/sh
# Installs what `npm run test:system` needs and this machine lacks. For root on Debian; a line for each package, with the program
# that it is wanted for.
set -eu

while read -r program package; do
  command -v "$program" >/dev/null || missing="${missing:-} $package"
done <<LIST
docker-registry docker-registry
promtool prometheus
strace strace
LIST

[ -n "${missing:-}" ] || exit 0
apt-get update --quiet
# shellcheck disable=SC2086 # One word for each package.
apt-get install --yes --no-install-recommends $missing
