"""Timings of whole processes on one machine; see docs/performance.md."""
