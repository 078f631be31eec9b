#!/bin/sh
# The steps that make the image's content, for deploy/Dockerfile and for any clean folder:
#
#   deploy/image-steps.sh dependencies SOURCE TARGET    TARGET/venv from SOURCE's lock file
#   deploy/image-steps.sh application SOURCE TARGET     TARGET/app, found by TARGET/venv
#
# SOURCE is the repository. TARGET must stay where it was made. PYTHON chooses the interpreter.
set -eu
umask 022

usage() {
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ $# -eq 3 ] || usage
source=$(cd "$2" && pwd)
mkdir -p "$3"
target=$(cd "$3" && pwd)

case $1 in
dependencies)
    "${PYTHON:-python3}" -m venv "$target/venv"
    # one dependency is published as source only; it is pure Python
    "$target/venv/bin/pip" install --no-cache-dir --disable-pip-version-check --quiet \
        --only-binary :all: --no-binary aiohttp-apispec \
        --require-hashes -r "$source/requirements/run.txt"
    # what installs has no place in what runs
    "$target/venv/bin/python" -m pip uninstall --quiet --yes setuptools wheel pip 2>/dev/null
    ;;
application)
    mkdir -p "$target/app"
    for part in common gateway dispatcher notifier application_config.yaml LICENSE; do
        cp -R "$source/$part" "$target/app/"
    done
    find "$target/app" -name __pycache__ -type d -prune -exec rm -rf {} +
    chmod -R a+rX "$target/app"  # whatever the checkout's umask was: another user runs it
    "$target/venv/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$target/app"
    packages=$("$target/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$target/app" >"$packages/opencloud.pth"
    ;;
*)
    usage
    ;;
esac
