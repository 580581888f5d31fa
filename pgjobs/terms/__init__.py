"""On which terms a job runs, as its task or its enqueue says: each option that is more than a number."""
