"""The daemon: the only part that runs as root; it sets modes for others, and always gives back."""
