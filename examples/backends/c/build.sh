#!/bin/sh
# Makes FOLDER/c.wasm of overlay.c. The tools come into FOLDER too, 215 MB; nothing is installed on the machine.
# Takes Debian 12 (its apt-get and dpkg-deb, no right of root), cargo and rustc with their linker for components.
# C_BINDINGS names the program that writes the contract's declarations in C, if it is built already.
set -eu
folder=${1:?Usage: build.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
tools=$(cd "$folder" && pwd)/c-tools

# The compiler with its library and headers, and a C library for WebAssembly.
clang=1:19.1.7-3~deb12u1
packages="clang-19=$clang libclang-cpp19=$clang libllvm19=$clang libclang-common-19-dev=$clang
    libclang-rt-19-dev-wasm32=$clang wasi-libc=0.0~git20220510.9886d3d-2"
if ! [ "$(cat "$tools/unpacked" 2>/dev/null)" = "$packages" ]; then
    rm -rf "$tools"
    mkdir -p "$tools/packages"
    # shellcheck disable=SC2086
    (cd "$tools/packages" && apt-get download --quiet=2 $packages)
    for package in "$tools"/packages/*.deb; do dpkg-deb --extract "$package" "$tools"; done
    rm -r "$tools/packages"
    echo "$packages" >"$tools/unpacked"
fi

# backend.h and backend.c: the contract in C. backend_component_type.o tells the linker of it.
bindings=$tools/bindings
${C_BINDINGS:-cargo run --quiet --release --manifest-path "$here/../../../Cargo.toml" --package c-bindings --} \
    "$here/../../../wit" backend "$bindings" >"$tools/written"

for library in "$tools"/usr/lib/*-linux-gnu; do export LD_LIBRARY_PATH="$library"; done
for source in "$here/overlay.c" "$here/json.c" "$bindings/backend.c"; do
    "$tools/usr/lib/llvm-19/bin/clang" --target=wasm32-wasi -Oz -std=c11 -Wall -Wextra -Werror \
        -isystem "$tools/usr/include/wasm32-wasi" -I "$bindings" -I "$here" \
        -c "$source" -o "$tools/$(basename "$source" .c).o"
done

# rustc's linker makes a component of what C's would make a module of.
host=$(rustc -vV | sed -n 's/^host: //p')
linkers=$(rustc --print sysroot)/lib/rustlib/$host/bin
libraries=$tools/usr/lib/wasm32-wasi
"$linkers/wasm-component-ld" --wasm-ld-path "$linkers/gcc-ld/wasm-ld" --entry _initialize --strip-all --gc-sections \
    -z stack-size=65536 --stack-first \
    "$libraries/crt1-reactor.o" "$tools/overlay.o" "$tools/json.o" "$tools/backend.o" \
    "$bindings/backend_component_type.o" "$libraries/libc.a" \
    -o "$folder/c.wasm.new"
mv "$folder/c.wasm.new" "$folder/c.wasm"
