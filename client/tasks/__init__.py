"""What a client learns: digits (embedded), generated images, Debian's data, CIFAR-10; or noop."""
