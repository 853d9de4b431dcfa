#!/bin/sh
# Makes sabot/wire/agent_pb2.py, agent_pb2.pyi and agent_pb2_grpc.py from agent.proto; `make proto` calls it.
#
# Generated code refuses a runtime older than its generator, so the generator is pinned to the oldest runtime that
# pyproject.toml admits (protobuf 6.30, grpcio 1.72.2), and lives in a virtual environment of its own.
set -eu

version=1.72.2
root=$(cd "$(dirname "$0")/.." && pwd)
venv="$root/build/proto-$version"

if [ ! -x "$venv/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "grpcio-tools==$version" || {
        rm -rf "$venv"
        echo "proto.sh: cannot install grpcio-tools==$version; a package index is needed for this" >&2
        exit 1
    }
fi

cd "$root"
exec "$venv/bin/python" -m grpc_tools.protoc -I . \
    --python_out=. --pyi_out=. --grpc_python_out=. sabot/wire/agent.proto
