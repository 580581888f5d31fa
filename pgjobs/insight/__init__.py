"""What operators are shown of jobs, queues and workers, in words; the command line and top say it."""
