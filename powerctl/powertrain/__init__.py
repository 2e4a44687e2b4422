"""Predictors: time and power of every mode of a board, from what is known and little measured."""
