"""How one job runs: which task it is, what its code is given and may ask for, and what its end means."""
