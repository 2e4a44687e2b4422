"""What runs the rounds: a virtual clock in this process or several, Flower's runtimes, or Ray."""
