#!/usr/bin/env bash
# Builds the wheels and installs them, for each extra, in a fresh environment: make check-release
# Needs a package index. PYTHON names the interpreter, CONSTRAINTS a file of versions.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m venv "$scratch/build"
"$scratch/build/bin/pip" install --quiet --disable-pip-version-check build
for source in release/powerctl .; do
    "$scratch/build/bin/python" -m build --outdir dist "$source"
done
wheel=$(ls -t dist/wattfed-*.whl | head -1)
powerctl=$(ls -t dist/powerctl-*.whl | head -1)

for extra in "" sim vision jetson pandas parquet tensorboard mlflow docs dev; do
    "$python" -m venv "$scratch/env"
    "$scratch/env/bin/pip" install --quiet --disable-pip-version-check \
        -c "${CONSTRAINTS:-constraints.txt}" "$powerctl" "$wheel${extra:+[$extra]}"
    "$scratch/env/bin/pip" check
    (
        cd "$scratch" # where only what was installed is found
        PATH="$scratch/env/bin:$PATH"
        wattfed --version
        wattfed simulate --rounds 1 --per-round 2 --json > simulated.json
        wattfed keys keys --certificate server=localhost --node jetson-0 > /dev/null
        wattfed units superlink > /dev/null
        wattfed new my-app > /dev/null
        powerctl boards > /dev/null
        wattfed-agent --help > /dev/null
    )
    echo "ok: $wheel${extra:+[$extra]}"
    rm -rf "$scratch/env" "$scratch/runs" "$scratch/keys" "$scratch/my-app"
done
