#!/bin/sh
# The wheels for benchmarks.gpu that a machine with a GPU mostly lacks, where it reaches no registry:
# Flower and its needs, gRPC and protobuf compiled for Linux on x86-64 and one Python. Its own are
# torch, torchvision, transformers, NumPy, SciPy, scikit-learn, Matplotlib, Pillow and Jinja2.
#
#   benchmarks/gpu_wheels.sh .venv-wheels 3.12
#
# and there, in this folder (.venv* is ignored by git):
#
#   python3 -m pip install -q --no-index --no-deps --target /tmp/site .venv-wheels/*.whl &&
#     PYTHONPATH=/tmp/site:. python3 -m benchmarks.gpu --seconds 200 --json gpu.json
set -eu
folder=${1:-.venv-wheels} python=${2:-3.12}
platforms=
for glibc in 17 24 27 28 31 34; do platforms="$platforms --platform manylinux_2_${glibc}_x86_64"; done
rm -rf "$folder"
# shellcheck disable=SC2086
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --only-binary=:all: \
  --python-version "$python" --platform manylinux2014_x86_64 $platforms \
  --constraint "$(dirname "$0")/../constraints.txt" --dest "$folder" \
  flwr grpcio grpcio-health-checking protobuf prometheus-client threadpoolctl nvidia-ml-py
rm -f "$folder"/numpy-* "$folder"/uv-* # the machine's own; and not used
du -sh "$folder"
