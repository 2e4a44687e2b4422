#!/bin/sh
# Registers the three nodes, runs the app on them, and fails unless the run completed.
set -eu
mkdir -p "$FLWR_HOME"
cat > "$FLWR_HOME/config.toml" <<'TOML'
[superlink]
default = "compose"

[superlink.compose]
address = "superlink:8000"
root-certificates = "/keys/ca.crt"
TOML
for client in 0 1 2; do
    flwr supernode register "/keys/nodes/client-$client.pub" --name "client-$client" || true # is there
done
flwr run /app --stream --run-config "$RUN_CONFIG out-dir='/results' timeout-s=300.0"
flwr ls --format json | python -c '
import json, sys
status = json.load(sys.stdin)["runs"][0]["status"]
print("run", status)
sys.exit(status != "finished:completed")'
