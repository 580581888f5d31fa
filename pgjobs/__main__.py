"""``python -m pgjobs``."""

from pgjobs.cli import main

main()
