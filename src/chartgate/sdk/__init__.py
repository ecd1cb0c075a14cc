"""Chartgate for applications: ask the policy, show only what it allows, and have it on record."""
