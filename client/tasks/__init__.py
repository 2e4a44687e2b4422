"""What a client learns: ``digits`` (embedded), generated images, ``cifar10``; or ``noop``."""
