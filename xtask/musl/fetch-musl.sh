#!/bin/sh
# fetch-musl.sh DIRECTORY ARCHITECTURE...
#
# Unpacks Debian's musl-dev for foreign architectures (arm64, armhf) into DIRECTORY. apt works on
# lists and caches of its own in a temporary directory: the machine's architectures, lists and
# packages stay as they are. The mirror and the release are the ones that the machine uses.
set -eu

directory=$1
shift
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/packages" "$directory"
: >"$state/status"

own=$(dpkg --print-architecture)
all=$own
quoted="\"$own\";"
for architecture; do
    all=$all,$architecture
    quoted="$quoted \"$architecture\";"
done
printf 'APT::Architectures { %s };\n' "$quoted" >"$state/apt.conf"

source=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' |
    grep -v -e security -e updates -e backports | grep '/debian ' | head -n 1)
if [ -z "$source" ]; then
    echo "fetch-musl.sh: apt has no package lists: run 'apt-get update' first" >&2
    exit 1
fi
printf 'deb [arch=%s signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s main\n' \
    "$all" "$source" >"$state/sources.list"

export APT_CONFIG="$state/apt.conf"
apt() {
    apt-get -qq -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status" \
        -o Dir::Cache="$state/cache" -o Dir::Etc::sourcelist="$state/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root "$@"
}
apt update
cd "$state/packages"
for architecture; do
    apt download "musl-dev:$architecture"
done
for package in *.deb; do
    dpkg-deb -x "$package" "$directory"
done
