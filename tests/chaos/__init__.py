"""Faults injected under load, and a ledger that says what became of every job. ``python -m tests.chaos --help``."""
