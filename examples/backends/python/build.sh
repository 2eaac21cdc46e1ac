#!/bin/sh
# Makes FOLDER/python.wasm of overlay.py. The tools come into FOLDER too, 75 MB; nothing is installed on the machine.
# Takes Python 3.9 or later with pip and venv (Debian: python3-venv).
set -eu
folder=${1:?Usage: build.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
tools=$(cd "$folder" && pwd)/python-tools

if ! cmp -s "$here/requirements.txt" "$tools/requirements.txt"; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --no-input --disable-pip-version-check --only-binary :all: --require-hashes \
        --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$tools/"
fi

# The component begins where Python has read overlay.py already. --stub-wasi: a backend may not import files and sockets.
export PYTHONDONTWRITEBYTECODE=1
"$tools/bin/componentize-py" --wit-path "$here/../../../wit" --world backend \
    componentize --stub-wasi --python-path "$here" overlay --output "$folder/python.wasm.new"
mv "$folder/python.wasm.new" "$folder/python.wasm"
