"""What a client learns: ``digits`` (embedded), ``cifar10`` (from a folder); or ``noop``."""
