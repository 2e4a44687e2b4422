"""What a client learns: ``digits`` (embedded) and ``cifar10`` (from a local folder)."""
