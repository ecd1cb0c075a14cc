"""Policies as formulas: what a solver can prove of every request there can be."""
