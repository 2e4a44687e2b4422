"""Client selection: the policies, the Flower Strategy that carries them, and the exchanged records."""
