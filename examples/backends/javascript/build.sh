#!/bin/sh
# Makes FOLDER/javascript.wasm of overlay.js. The tools come into FOLDER too, 38 MB; nothing is installed on the machine.
# Takes Node.js 18 or later with npm.
set -eu
folder=${1:?Usage: build.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
tools=$(cd "$folder" && pwd)/javascript-tools

if ! cmp -s "$here/package-lock.json" "$tools/installed"; then
    rm -rf "$tools"
    mkdir -p "$tools"
    cp "$here/package.json" "$here/package-lock.json" "$tools/"
    # Not `npm ci`: it wants the packages for all other kinds of machines, which a mirror may lack.
    npm install --prefix "$tools" --ignore-scripts --no-audit --no-fund --loglevel=error
    cp "$here/package-lock.json" "$tools/installed"
fi

# The component begins where QuickJS has read overlay.js already. --stub-wasi: a backend may not import files. Not --opt-size,
# which is made with tail calls: Twill runs none.
node "$tools/node_modules/componentize-qjs/bin/componentize-qjs" --wit "$here/../../../wit" --world backend \
    --js "$here/overlay.js" --sync --stub-wasi --output "$folder/javascript.wasm.new"
mv "$folder/javascript.wasm.new" "$folder/javascript.wasm"
