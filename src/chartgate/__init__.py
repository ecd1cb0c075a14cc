"""Chartgate: the access plane for patient data."""

__version__ = "0.1.0"
