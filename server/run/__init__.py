"""A federated run: its rounds, its history and judgement, its results and checkpoints on disc."""
