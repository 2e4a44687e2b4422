"""Client selection: policies, the Flower Strategy that carries them, the exchanged records."""
