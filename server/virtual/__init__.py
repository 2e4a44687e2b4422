"""The engine of the virtual clock: a fleet in arrays, clients that train when they are selected."""
