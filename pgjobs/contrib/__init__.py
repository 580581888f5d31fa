"""Doors for other libraries and other habits; each module says what it needs installed."""
