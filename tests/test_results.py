"""Results: their types, where they are kept and for how long, and in which order they come."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from pgjobs import (
    Cancel,
    Job,
    JobNotFoundError,
    Keep,
    OptionError,
    PgJobs,
    ResultStorageError,
    ResultTimeoutError,
    ResultTypeError,
    Retry,
    Status,
    current_job,
)
from pgjobs.job import new_id
from tests.support import eventually

pytestmark = pytest.mark.server


@dataclasses.dataclass
class Order:
    id: UUID
    at: datetime
    total: Decimal


class Point(msgspec.Struct):
    x: int
    tags: set[str]


class Model:
    """What pydantic's models look like."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object"}

    def model_dump(self, mode: str) -> dict[str, Any]:
        return self.values

    @classmethod
    def model_validate(cls, value: Any) -> Model:
        return cls(**value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and other.values == self.values

    __hash__ = None  # type: ignore[assignment]


NOW = datetime(2027, 1, 31, 12, 0, 0, 5, tzinfo=UTC)
SOME_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ORDER = Order(SOME_ID, NOW, Decimal("1.10"))


# -- types


@pytest.mark.parametrize(
    ("annotation", "value", "stored"),
    [
        (Order, ORDER, {"id": str(SOME_ID), "at": "2027-01-31T12:00:00.000005Z", "total": "1.10"}),
        (list[Order] | None, [ORDER], None),
        (Point, Point(1, {"a"}), {"x": 1, "tags": ["a"]}),
        (datetime, NOW, "2027-01-31T12:00:00.000005Z"),
        (UUID, SOME_ID, str(SOME_ID)),
        (Decimal, Decimal("0.30"), "0.30"),
        (Model, Model(a=1), {"a": 1}),
        (tuple[int, str], (1, "a"), [1, "a"]),
        (dict[str, datetime], {"now": NOW}, None),
        (int, 3, 3),
        (Any, {"a": 1}, {"a": 1}),
        (None, "of a function that says it returns none", None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_result_comes_back_in_the_type_of_the_annotation(
    annotation: Any, value: Any, stored: Any, jobs: PgJobs
) -> None:
    def work() -> Any:
        return value

    async def awork() -> Any:
        return value

    work.__annotations__["return"] = awork.__annotations__["return"] = annotation
    ids = [jobs.task(work).enqueue(), jobs.task(awork).enqueue()]
    async with jobs.worker():
        for job in ids:
            assert await job.aget(10) == value
            assert type(job.get(1)) is type(value)
            assert jobs.job(job.id).get(1) == value, "a registered name is enough"
            assert stored is None or job.refresh().result == stored
    await jobs.aclose()


def test_completion_within_a_transaction_stores_such_types_too(jobs: PgJobs) -> None:
    @jobs.task
    def work() -> Order:
        with psycopg.connect(jobs.database.url) as app:
            current_job().complete(app, ORDER)
        return ORDER

    job = work.enqueue()
    with jobs.worker():
        assert job.get(10) == ORDER


def test_result_that_does_not_fit_fails_no_job_and_says_so_to_who_reads_it(jobs: PgJobs) -> None:
    @jobs.task
    def work() -> Order:
        return {"id": 5}  # type: ignore[return-value]

    job = work.enqueue()
    jobs.worker(burst=True).run()
    with pytest.raises(ResultTypeError, match=r"work.* does not fit its annotation: .*; see job\.result"):
        job.get(1)
    assert (job.status, job.result) == (Status.SUCCEEDED, {"id": 5})


def test_process_that_does_not_know_the_task_has_json(jobs: PgJobs, database_url: str) -> None:
    @jobs.task(name="work")
    def work() -> datetime:
        return NOW

    job = work.enqueue()
    jobs.worker(burst=True).run()
    other = PgJobs(database_url)
    assert other.job(job.id).get(1) == "2027-01-31T12:00:00.000005Z"
    other.close()


# -- how long


def prune(conn: psycopg.Connection) -> None:
    """Has the pruner come at once."""
    conn.execute("UPDATE pgjobs.duties SET next_at = now() WHERE name = 'prune'")


def test_what_is_kept_for_nothing_goes_when_the_pruner_comes(jobs: PgJobs, conn: psycopg.Connection) -> None:
    gate = threading.Event()

    @jobs.task(keep=Keep(succeeded=0, failed="90d", cancelled=0), retry=1)
    def work(how: str) -> None:
        if how == "slow":
            gate.wait(20)
        if how == "fails":
            raise ValueError
        if how == "cancels":
            raise Cancel

    @jobs.task
    def other() -> None: ...

    ids = {how: work.enqueue(how).id for how in ("succeeds", "fails", "cancels", "slow")}
    ids["other"] = other.enqueue().id

    def left() -> set[str]:
        found = {row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs").fetchall()}
        return {how for how, job_id in ids.items() if job_id in found}

    with jobs.worker():
        eventually(lambda: prune(conn) or left() == {"slow", "fails", "other"})
        gate.set()
        eventually(lambda: prune(conn) or left() == {"fails", "other"})


def test_failed_jobs_may_be_kept_for_less_than_others(jobs: PgJobs, conn: psycopg.Connection) -> None:
    @jobs.task(retry=1, keep=Keep(failed=0))
    def work(fails: bool) -> None:
        if fails:
            raise ValueError

    bad, good = work.enqueue(True), work.enqueue(False)
    with jobs.worker():
        good.get(10)
        eventually(lambda: prune(conn) or conn.execute("SELECT id FROM pgjobs.jobs").fetchall() == [(good.id,)])
    with pytest.raises(JobNotFoundError):
        bad.refresh()


def test_keep_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(OptionError, match="keep failed is 'soon'"):
        Keep(failed="soon")


def test_ignored_result_is_not_stored(jobs: PgJobs) -> None:
    always = jobs.task(name="always", ignore_result=True)(lambda: "x")
    once = jobs.task(name="once")(lambda: "x")
    ids = [always.enqueue().id, once.using(ignore_result=True).enqueue().id, once.enqueue().id]
    by_name = jobs.using().enqueue("always").id
    with jobs.worker():
        assert [job.result for job in jobs.wait([*ids, by_name], 10)] == [None, None, "x", None]


# -- elsewhere


class Memory:
    """A storage as an application has one."""

    def __init__(self) -> None:
        self.kept: dict[UUID, tuple[bytes, float]] = {}
        self.broken = False

    def get(self, job_id: UUID) -> bytes | None:
        if self.broken:
            raise ConnectionError("no route to the bucket")
        return self.kept[job_id][0] if job_id in self.kept else None

    def set(self, job_id: UUID, data: bytes, ttl_s: float) -> None:
        if self.broken:
            raise ConnectionError("no route to the bucket")
        self.kept[job_id] = (data, ttl_s)


@pytest.mark.parametrize("kind", ["thread", "async", "within a transaction"])
async def test_large_result_is_kept_in_the_storage(kind: str, database_url: str) -> None:
    storage = Memory()
    jobs = PgJobs(database_url, results=storage, results_over=1_000, result_ttl="2h")

    def work(size: int) -> str:
        if kind == "within a transaction":
            with psycopg.connect(jobs.database.url) as app:
                current_job().complete(app, "x" * size)
        return "x" * size

    async def awork(size: int) -> str:
        return "x" * size

    task: Any = jobs.task(awork if kind == "async" else work)
    large, small = task.enqueue(2_000_000), task.enqueue(10)
    async with jobs.worker():
        assert await large.aget(10) == large.get(1) == "x" * 2_000_000
        assert small.get(10) == "x" * 10
    assert large.refresh().result == {"$stored": {"bytes": 2_000_002}}
    assert list(storage.kept) == [large.id]
    assert storage.kept[large.id][1] == 7200
    await jobs.aclose()


def test_storage_of_a_task_may_take_all_and_knows_types(jobs: PgJobs) -> None:
    storage = Memory()

    @jobs.task(results=storage, results_over=0)
    def work() -> Order:
        return ORDER

    job = work.enqueue()
    with jobs.worker():
        assert job.get(10) == ORDER
    assert job.id in storage.kept
    storage.broken = True
    with pytest.raises(ResultStorageError, match="could not be read by Memory: no route to the bucket; try again"):
        job.get(1)
    storage.broken = False
    storage.kept.clear()
    with pytest.raises(ResultStorageError, match="is gone from Memory"):
        job.get(1)


def test_storage_that_would_have_to_be_awaited_is_refused(jobs: PgJobs) -> None:
    class Async(Memory):
        async def set(self, job_id: UUID, data: bytes, ttl_s: float) -> None: ...  # type: ignore[override]

    class Hidden(Memory):
        def set(self, job_id: UUID, data: bytes, ttl_s: float) -> Any:
            return asyncio.Future(loop=loop)

    with pytest.raises(OptionError, match="whose get or set is async"):
        jobs.task(results=Async())(lambda: 1)
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        job = jobs.task(name="work", results=Hidden(), results_over=0, retry=1)(lambda: 1).enqueue()
        jobs.worker(burst=True).run()
    (failure,) = job.failures()
    assert "set returns what would have to be awaited, and stores nothing" in (failure.message or "")


@pytest.mark.parametrize("data", ["{", b"\xff", 5])
def test_what_a_storage_gives_back_is_a_result_or_an_error(data: Any, jobs: PgJobs) -> None:
    storage = Memory()
    job = jobs.task(name="work", results=storage, results_over=0)(lambda: 1).enqueue()
    jobs.worker(burst=True).run()
    storage.kept[job.id] = (data, 0.0)
    with pytest.raises(ResultStorageError, match=r"what Memory has for job .* is not what was stored"):
        job.get(1)


def test_result_that_looks_like_a_reference_is_none(jobs: PgJobs) -> None:
    storage = Memory()
    plain = jobs.task(name="plain")(lambda: {"$stored": 1})
    kept = jobs.task(name="kept", results=storage)(lambda: {"$stored": 1})
    with jobs.worker():
        assert plain.enqueue().get(10) == kept.enqueue().get(10) == {"$stored": 1}


def test_unavailable_storage_fails_the_attempt_and_loses_nothing(jobs: PgJobs) -> None:
    storage = Memory()
    storage.broken = True

    @jobs.task(results=storage, results_over=0, retry=Retry(2, backoff=0.3, jitter=False))
    def work() -> str:
        return "precious"

    job = work.enqueue()
    with jobs.worker():
        eventually(job.failures)
        storage.broken = False
        assert job.get(10) == "precious"
    assert job.refresh().attempt == 2
    (failure,) = job.failures()
    assert "could not be stored by Memory: no route to the bucket" in (failure.message or "")


def test_large_result_without_a_storage_is_refused_as_ever(jobs: PgJobs) -> None:
    job = jobs.task(name="work", retry=1)(lambda: "x" * 2_000_000).enqueue()
    jobs.worker(burst=True).run()
    assert (job.status, job.reason) == (Status.FAILED, "unstorable result")


# -- first come, first served


def test_jobs_come_in_the_order_of_their_ends(jobs: PgJobs) -> None:
    gates = [threading.Event() for _ in range(3)]

    @jobs.task(retry=1)
    def work(i: int) -> int:
        gates[i].wait(10)
        if i == 1:
            raise ValueError
        return i

    ids = work.enqueue_many([(0,), (1,), (2,)])
    order: list[tuple[Status, Any]] = []
    with jobs.worker():
        gates[2].set()
        found = jobs.as_completed([*ids, ids[0]], 10)
        for gate in (1, 0, None):
            job = next(found)
            order.append((job.status, job.result))
            if gate is not None:
                gates[gate].set()
        assert next(found, None) is None
    assert order == [(Status.SUCCEEDED, 2), (Status.FAILED, None), (Status.SUCCEEDED, 0)]


async def test_async_twin_of_as_completed(jobs: PgJobs) -> None:
    ids = await jobs.task(name="work")(lambda i: i).aenqueue_many([(i,) for i in range(50)])
    async with jobs.worker():
        assert sorted([await job.aget() async for job in jobs.aas_completed(ids, 10)]) == list(range(50))
    await jobs.aclose()


def counted(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the statements that the application's connections run from now on."""
    names: list[str] = []
    original = jobs.database._run_once

    def once(statement: Any) -> Any:
        names.append(statement.query.name)
        return original(statement)

    monkeypatch.setattr(jobs.database, "_run_once", once)
    return names


def test_tens_of_thousands_cost_few_statements(
    jobs: PgJobs, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @jobs.task(name="work")
    async def work(i: int) -> int:
        return i

    ids = work.enqueue_many([(i,) for i in range(20_000)])
    reader = PgJobs(database_url)
    names = counted(reader, monkeypatch)
    with jobs.worker(concurrency=100):
        started = time.monotonic()
        results = [job.get() for job in reader.as_completed(ids, 100)]
        took_s = time.monotonic() - started
    assert sorted(results) == list(range(20_000))
    looks = 4 * (took_s / 0.2 + 5)
    assert len(names) < 20_000 / 100 + looks, f"{len(names)} statements"
    assert set(names) == {"ended"}, "and none for a result"
    reader.close()


def test_what_is_heard_is_asked_for_and_nothing_else(jobs: PgJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    from pgjobs import completions

    monkeypatch.setattr(completions, "LOOK_S", 60.0)
    gate = threading.Event()

    @jobs.task(name="work", executor="thread")
    def work(i: int) -> int:
        gate.wait(20)
        return i

    ids = work.enqueue_many([(i,) for i in range(3_000)])
    asked: list[int] = []
    original = completions.Race.ended

    def ended(self: Any, some: Any, rows: Any) -> Any:
        asked.append(len(some))
        return original(self, some, rows)

    monkeypatch.setattr(completions.Race, "ended", ended)
    opener = threading.Timer(1.5, gate.set)
    opener.start()
    with jobs.worker():
        assert len([job.id for job in jobs.as_completed(ids, 60)]) == 3_000
    late = asked[-3:]
    assert max(late) < 3_000


def test_late_and_missing_jobs_are_named(jobs: PgJobs) -> None:
    job = jobs.task(name="work")(lambda: 1).enqueue()
    with pytest.raises(ResultTimeoutError, match=f"{job.id} is still queued after 0.3 s"):
        list(jobs.as_completed([job], 0.3))
    with pytest.raises(JobNotFoundError):
        list(jobs.as_completed([job.id, new_id()], 5))
    assert list(jobs.as_completed([], 5)) == []


def test_get_after_waiting_asks_once_more_after_that(jobs: PgJobs) -> None:
    job: Job[Any] = jobs.task(name="work")(lambda: 1).enqueue()
    with jobs.worker():
        (done,) = jobs.as_completed([job], 10)
    assert done.get() == 1
    done.delete()
    with pytest.raises(JobNotFoundError):
        done.get(1)
