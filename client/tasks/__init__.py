"""What a client learns: ``digits`` (embedded), generated images, ``cifar10`` (from a folder); or ``noop``."""
