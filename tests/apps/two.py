"""An application with two queues: which one -A means cannot be told."""

from pgjobs import PgJobs

one = PgJobs()
other = PgJobs()
