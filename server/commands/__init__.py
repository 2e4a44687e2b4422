"""The commands of `wattfed`, a module each."""
