"""Cycles that overlap: what a claim has brought begins while the database works on the next cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgjobs import PgJobs
from pgjobs.connections.link import Link, Results
from pgjobs.events import Event, Trouble
from pgjobs.statements import Query, Statement
from pgjobs.worker.claiming.claimer import Claimer
from pgjobs.worker.claiming.slots import Slots
from pgjobs.worker.life import Life
from tests.model import world
from tests.support import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def link(jobs: PgJobs) -> Iterator[Link]:
    made = Link(jobs.database, "test")
    yield made
    made.close()


@pytest.fixture
def life(jobs: PgJobs) -> Iterator[Life]:
    """A worker with one slot whose claimer is moved by hand, and 30 jobs for it."""
    work = jobs.task(name="work")(lambda i: i)
    with jobs.worker(concurrency=1, shutdown_timeout=0) as worker:
        life = worker._life_now()
        assert work.enqueue(0).get(15) == 0
        life.claiming.stop()
        assert life.claiming.join(10)
        work.enqueue_many([(i,) for i in range(30)])
        yield life
        life.slots.drop()
        life._link.close()


def held(life: Life) -> list[UUID]:
    """The jobs that have been handed over to the slots, finished ones too."""
    return sorted(run.id for run in life.slots.owed)


def claimed(conn: psycopg.Connection[Any]) -> list[UUID]:
    return [row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs WHERE status = 'running' ORDER BY id")]


def test_claimed_jobs_begin_once_the_next_cycle_has_been_sent(
    life: Life, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    life.claimer._cycle([], 10)
    first = claimed(conn)
    assert len(first) == 10
    assert not held(life), "they wait for the next cycle to be on its way"
    begun: list[list[UUID]] = []
    batch = Link.batch

    def watched(self: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        assert not held(life)
        results = batch(self, *wanted, meanwhile=meanwhile)
        begun.append(held(life))
        return results

    with monkeypatch.context() as patch:
        patch.setattr(Link, "batch", watched)
        life.claimer._cycle([], 10)
    assert begun == [first]
    assert len(claimed(conn)) == 20
    life.claimer._begin_arrived()
    assert held(life) == claimed(conn)


def test_room_counts_what_has_arrived(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "buffer", 20)
    assert life.claimer._room() == 1 + 20 // 2
    life.claimer._cycle([], 11)
    assert life.claimer._room() == 1 + 20 - 11


@pytest.mark.parametrize("sent", [False, True])
def test_no_claimed_job_is_lost_where_the_next_cycle_fails(
    sent: bool, life: Life, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        if sent and meanwhile is not None:
            meanwhile()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    life.claimer._cycle([], 10)
    with monkeypatch.context() as patch:
        patch.setattr(Link, "batch", broken)
        patch.setattr(life.claimer._reconciliation, "at", 0.0)
        with pytest.raises(psycopg.OperationalError):
            life.claimer.tick()
    assert held(life) == claimed(conn)


@pytest.mark.parametrize(
    ("error", "recorded", "told"),
    [
        (psycopg.errors.SerializationFailure(), 0, []),  # sent again by the next cycle
        (psycopg.errors.NumericValueOutOfRange(), 10, []),
        (psycopg.DataError("cannot be dumped"), 10, []),
        (psycopg.errors.InternalError_("odd"), 10, [psycopg.errors.InternalError_]),
    ],
)
def test_no_outcome_is_lost_where_its_cycle_fails(
    error: psycopg.Error, recorded: int, told: list[type[Exception]], life: Life, conn: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A claim that cannot be made undoes no completion; and one bad outcome among them holds up no other."""
    succeeded = "SELECT count(*)::int FROM pgjobs.jobs WHERE status = 'succeeded'"
    events: list[Event] = []
    monkeypatch.setattr(life.claimer._recorder, "_emit", events.append)
    life.claimer._cycle([], 10)
    life.claimer._begin_arrived()
    eventually(lambda: not life.slots.held)
    batch, errors = Link.batch, [error]

    def broken(self: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        if errors:
            raise errors.pop()
        return batch(self, *wanted, meanwhile=meanwhile)

    before = conn.execute(succeeded).fetchone()
    assert before is not None
    monkeypatch.setattr(Link, "batch", broken)
    outcomes = life.claimer._recorder.take()
    assert len(outcomes) == 10
    life.claimer._cycle(outcomes, 10)
    assert conn.execute(succeeded).fetchone() == (before[0] + recorded,)
    assert [type(event.error) for event in events if isinstance(event, Trouble)] == told
    life.claimer._cycle(life.claimer._recorder.take(), 0)
    assert conn.execute(succeeded).fetchone() == (before[0] + 10,)


def test_a_cycle_that_only_claims_says_what_went_wrong(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        raise psycopg.errors.InternalError_("odd")

    with monkeypatch.context() as patch:
        patch.setattr(Link, "batch", broken)
        with pytest.raises(psycopg.errors.InternalError_):
            life.claimer._cycle([], 10)


def test_outcome_that_cannot_be_stored_at_all_is_kept(
    life: Life, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even as a failure: whatever that is, it is tried again, and the jobs are not forgotten."""

    def broken(self: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        raise psycopg.errors.NumericValueOutOfRange

    life.claimer._cycle([], 2)
    life.claimer._begin_arrived()
    eventually(lambda: not life.slots.held)
    with monkeypatch.context() as patch:
        patch.setattr(Link, "batch", broken)
        life.claimer._cycle(life.claimer._recorder.take(), 0)
    assert sorted(run.id for run in life.claimer._owed()) == claimed(conn)


def settles(wanted: tuple[Statement[Any], ...]) -> bool:
    return any(each.query.name == "complete" for each in wanted)


def test_what_was_recorded_apart_before_the_connection_broke_is_not_counted_twice(
    life: Life, conn: psycopg.Connection[Any], link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a claim would look settled, and be forgotten, while jobs run under it: nobody would ever find those."""
    life.claimer._cycle([], 9)
    life.claimer._begin_arrived()
    eventually(lambda: not life.slots.held)
    outcomes, batch, tries = life.claimer._recorder.take(), Link.batch, []
    some, others = outcomes[:6], outcomes[6:]
    some[5].result = "{"
    claim = some[0].run.claim

    def breaks(self: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        tries.append(settles(wanted))
        if tries.count(True) == 4:  # the second half
            self.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return batch(self, *wanted, meanwhile=meanwhile)

    with monkeypatch.context() as patch:
        patch.setattr(Link, "batch", breaks)
        with pytest.raises(psycopg.OperationalError):
            life.claimer._cycle(some, 0)
    assert claim.left == 6, "the first half was recorded"
    life.claimer._cycle(life.claimer._recorder.take(), 0)
    life.claimer._cycle([], 0)
    assert claim.left == 3
    assert sorted(outcome.run.id for outcome in others) == claimed(conn)
    assert not world.violations(conn)


@pytest.mark.parametrize("breaks", ["standing", "tell"])
def test_outcome_of_a_held_row_is_kept_where_the_connection_breaks_after_the_commit(
    breaks: str, life: Life, conn: psycopg.Connection[Any], direct_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.claimer._cycle([], 3)
    life.claimer._begin_arrived()
    eventually(lambda: not life.slots.held)
    outcomes = life.claimer._recorder.take()
    conn.execute("INSERT INTO pgjobs.waiters (channel) VALUES ('somebody')")
    text, numbered = Query.text, Query.numbered

    def broken(self: Query, schema: str) -> Any:
        if self.name == breaks:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return (text if breaks == "tell" else numbered)(self, schema)

    with psycopg.connect(direct_url) as app, monkeypatch.context() as patch:
        app.execute("SELECT FROM pgjobs.jobs WHERE id = %s FOR UPDATE", [outcomes[0].run.id])
        patch.setattr(Query, "text" if breaks == "tell" else "numbered", broken)
        with pytest.raises(psycopg.OperationalError):
            life.claimer._cycle(outcomes, 0)
    assert outcomes[0].run in life.claimer._owed()
    life.claimer._cycle(life.claimer._recorder.take(), 0)
    assert claimed(conn) == []


def test_claimed_jobs_begin_also_where_the_database_was_slow_to_take_the_next_batch(
    life: Life, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Link.batch

    def slow(self: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        return batch(self, *wanted)

    life.claimer._cycle([], 2)
    with monkeypatch.context() as patch:
        patch.setattr(Link, "batch", slow)
        life.claimer._cycle([], 2)
    life.claimer._begin_arrived()
    assert len(claimed(conn)) == 4
    assert held(life) == claimed(conn)


def test_outcomes_of_which_no_statement_can_be_made_are_kept(
    life: Life, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("of whatever makes a document of it")

    life.claimer._cycle([], 3)
    life.claimer._begin_arrived()
    eventually(lambda: not life.slots.held)
    with monkeypatch.context() as patch:
        patch.setattr(life.claimer._completer, "statements", broken)
        with pytest.raises(RuntimeError):
            life.claimer._cycle(life.claimer._recorder.take(), 0)
    assert held(life) == claimed(conn)


def test_text_that_cannot_be_sent_fails_its_own_job_alone(life: Life, conn: psycopg.Connection[Any]) -> None:
    life.claimer._cycle([], 3)
    life.claimer._begin_arrived()
    eventually(lambda: not life.slots.held)
    outcomes = life.claimer._recorder.take()
    claim, outcomes[1].result = outcomes[0].run.claim.id, '"\udce9"'
    life.claimer._cycle(outcomes, 0)
    ended = "SELECT status, reason, count(*)::int FROM pgjobs.jobs WHERE claim_id = %s GROUP BY 1, 2 ORDER BY 1"
    rows = conn.execute(ended, [claim]).fetchall()
    assert rows == [("failed", "unstorable result", 1), ("succeeded", None, 2)]


def test_what_goes_wrong_meanwhile_loses_neither_outcomes_nor_jobs(
    life: Life, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("of whoever makes jobs ready")

    statuses = "SELECT status, count(*)::int FROM pgjobs.jobs WHERE args->>'i' <> '' GROUP BY 1 ORDER BY 1"
    life.claimer._cycle([], 10)
    life.claimer._begin_arrived()
    eventually(lambda: not life.slots.held)
    life.claimer._cycle([], 5)
    with monkeypatch.context() as patch:
        patch.setattr(life.claimer, "_begin", broken)
        with pytest.raises(RuntimeError):
            life.claimer.tick()
    life.claimer.stop_claiming()
    life.claimer._reconciliation.at = 0.0
    life.claimer.tick()
    life.claimer._cycle([], 0)
    assert conn.execute(statuses).fetchall() == [("queued", 20), ("succeeded", 11)]
    assert conn.execute("SELECT count(*) FROM pgjobs.claims").fetchone() == (0,), "all has been confirmed"


def test_a_drain_overlaps_its_cycles_and_runs_each_job_once(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    overlapped: list[bool] = []
    under_way: list[Link] = []
    batch, begin = Link.batch, Claimer._begin

    def watched(self: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        under_way.append(self)
        try:
            return batch(self, *wanted, meanwhile=meanwhile)
        finally:
            under_way.remove(self)

    def noted(self: Claimer, *given: Any) -> None:
        overlapped.append(self._link in under_way)
        begin(self, *given)

    async def work(i: int) -> None:
        ran.append(i)

    jobs.task(name="work")(work).enqueue_many([(i,) for i in range(5_000)])
    monkeypatch.setattr(Link, "batch", watched)
    monkeypatch.setattr(Claimer, "_begin", noted)
    jobs.worker(concurrency=4, burst=True).run()
    assert sorted(ran) == list(range(5_000))
    assert any(overlapped), "jobs begin while the database works"
    assert conn.execute("SELECT status, attempt, count(*) FROM pgjobs.jobs GROUP BY 1, 2").fetchall() == [
        ("succeeded", 1, 5_000)
    ]


@pytest.mark.parametrize("size", [10, 30_000_000])
def test_transaction_is_over_without_us_when_something_is_done_meanwhile(
    size: int, link: Link, conn: psycopg.Connection[Any]
) -> None:
    """Else it would hold its locks for as long as that takes: the COMMIT has been sent by then, or nothing is done."""
    seen: list[int] = []
    write = Query("write", "INSERT INTO pgjobs.marks (text) VALUES (%(text)s::text)")

    def look() -> None:
        eventually(lambda: conn.execute("SELECT count(*) FROM pgjobs.marks").fetchone() == (1,), 30)
        seen.append(1)

    link.batch(Statement(write, {"text": "x" * size}, list), meanwhile=look)
    assert conn.execute("SELECT count(*) FROM pgjobs.marks").fetchone() == (1,)
    assert seen or size > 10
