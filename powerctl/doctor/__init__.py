"""The doctor: what there is on a board, what may be set, and what is missing; changes nothing."""
