"""Benchmarks, run by hand: ``python -m tests.benchmarks NAME ...`` or ``--all``.

Each is a function of the number of seeds and of `quick`, a setting of seconds without other data
than the embedded, in which its numbers mean nothing.
"""
