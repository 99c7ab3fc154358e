"""Saved files: any tree of values as one checked file, and graphs as such trees."""
