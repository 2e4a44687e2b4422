"""A camera app beside the agent: ten frames a second through a small network, one turn each.

Start an agent (`wattfed-agent serve`), then: python examples/camera.py --seconds 30
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from wattfed.client.gate import Gate, TurnRefused


def main() -> None:
    """Capture, wait for a turn, detect; a frame whose turn comes too late is dropped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--socket", default=None, help="of the agent")
    options = parser.parse_args()
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    network(torch.rand(1, 3, 96, 96))  # the first minibatch is slow: not in a turn
    gate = Gate("camera", socket=options.socket, latency_s=0.1, expected_s=0.005, rate_hz=10)
    start_s, frames, dropped = time.monotonic(), 0, 0
    while (now_s := time.monotonic()) < start_s + options.seconds:
        frame = torch.rand(1, 3, 96, 96)
        try:
            with gate.minibatch("infer", deadline_s=0.05), torch.inference_mode():
                network(frame).argmax().item()
        except TurnRefused as refused:
            dropped += 1
            print(f"frame {frames} dropped: {refused}")
        frames += 1
        time.sleep(max(0.0, now_s + 0.1 - time.monotonic()))
    print(f"{frames} frames, {dropped} dropped")


if __name__ == "__main__":
    main()
