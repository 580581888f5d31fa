"""The parent of the worker processes: starts and restarts them, beats for them, and says how they stand."""
