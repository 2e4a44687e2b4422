#!/bin/sh
# Makes what the services need before they start; what is there is kept.
set -eu
wattfed keys /keys --certificate server=superlink,localhost \
    --node client-0 --node client-1 --node client-2
[ -f /models/digits.pt ] || python - <<'PYTHON'
import torch

from wattfed.client.tasks.federated import federated
from wattfed.strategies.run_config import RunConfig

torch.save(federated(RunConfig(task="digits"), 1).model().state_dict(), "/models/digits.pt")
PYTHON
