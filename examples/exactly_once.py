"""A charge and the completion of its job are one transaction: both happen, once, or neither does.

pgjobs worker -A exactly_once
python exactly_once.py
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pgjobs import PgJobs, current_job
from pgjobs.config import find_url

engine = sa.create_engine(find_url().replace("postgresql://", "postgresql+psycopg://"))
jobs = PgJobs(engine)


@jobs.task
def charge(order: int, cents: int) -> None:
    """Runs at least once; charges exactly once."""
    with Session(engine) as session, session.begin():
        session.execute(
            sa.text("INSERT INTO charges (order_no, cents) VALUES (:order, :cents)"), {"order": order, "cents": cents}
        )
        # Fenced: if this worker was believed dead meanwhile, ClaimLostError rolls the charge back.
        current_job().complete(session, {"charged": cents})


def place_order(order: int, cents: int) -> None:
    """The order and its job are one transaction as well: no job without the order, no order without the job."""
    with Session(engine) as session, session.begin():
        session.execute(sa.text("INSERT INTO orders (no) VALUES (:no)"), {"no": order})
        charge.using(session).enqueue(order, cents)


if __name__ == "__main__":
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS orders (no int PRIMARY KEY)"))
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS charges (order_no int, cents int)"))
        highest = connection.scalar(sa.text("SELECT coalesce(max(no), 0) FROM orders"))
    place_order(highest + 1, 995)
    print("ordered:", highest + 1)
