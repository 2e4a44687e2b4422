"""The federation's server: the Flower ServerApp, the simulation on a virtual clock, the results."""
