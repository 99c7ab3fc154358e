"""Seeded, counted attacks on serkit, each a script: ``python -m tests.campaigns.fuzz``."""
