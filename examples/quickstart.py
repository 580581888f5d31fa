"""A web request must be answered within 30 seconds, and the import takes 5 minutes: so the request only enqueues it.

pgjobs migrate
pgjobs worker -A quickstart
python quickstart.py
"""

import time

from pgjobs import PgJobs, Retry, current_job

jobs = PgJobs()  # PGJOBS_URL, else DATABASE_URL, else PG*; or PgJobs("postgresql://…")


@jobs.task(queue="imports", timeout="10m", retry=Retry(max_attempts=3))
def import_customers(rows: int, pause: float = 0.001) -> int:
    """Stands for the five minutes."""
    print(f"attempt {current_job().attempt}: importing {rows} customers")
    for _ in range(rows):
        time.sleep(pause)
    return rows


def answer_request() -> str:
    """What the web request does: one INSERT, a millisecond."""
    job = import_customers.enqueue(500)
    return str(job.id)


if __name__ == "__main__":
    job_id = answer_request()
    print("accepted:", job_id)
    print("imported:", jobs.job(job_id).get(timeout=60))
