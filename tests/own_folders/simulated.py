"""Simulates through wattfed's public names, beside the app's own folders."""

from __future__ import annotations

import json
import sys

import wattfed
from client.gate import GATE
from server.app import OUT
from strategies.policy import OPTIONS

result = wattfed.simulate(out_dir=OUT, **OPTIONS)
tops = ("client", "server", "strategies", "wattfed", "powerctl")
files = {top: sys.modules[top].__file__ for top in tops}
print(json.dumps({"gate": GATE, "result": str(result), "files": files}))
