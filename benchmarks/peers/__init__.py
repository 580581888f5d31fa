"""The same job through other queues, side by side on one machine: ``python -m benchmarks.peers``."""
