"""Pagoda: FLOP and bytes of a model, and the time and energy rooflines that they feed."""
