"""Each statement of the protocol while another one is in an open transaction: who waits for whom, and how it ends."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import combinations
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest

from pgjobs import PgJobs, statements
from pgjobs.connections.link import Link
from pgjobs.job import Draft, Template, new_id
from pgjobs.report import Child
from pgjobs.statements import Range, Statement
from tests.model import world
from tests.support import copy_of

pytestmark = pytest.mark.server

RACES: Final = 12_000 if "PGJOBS_LONG_S" in os.environ else 2_000
RACING: Final = 200
HOUR: Final = timedelta(hours=1)


class Pair:
    """One job, one worker that may hold it, and one that is free; two connections, of which none waits for long."""

    def __init__(self, url: str) -> None:
        jobs = PgJobs(f"{url}?options=-clock_timeout%3D20")
        self.jobs = jobs
        self.first, self.second, self.third = (Link(jobs.database, name) for name in ("first", "second", "third"))
        self.conn = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        """Closes all connections."""
        for each in (self.first, self.second, self.third, self.conn, self.jobs):
            each.close()

    def put(self, state: str) -> None:
        """Makes the job stand in a state in which as much as possible may happen to it: it is due, late, overdue.

        dead: it runs under a worker that was declared dead; so was the one under which it has succeeded.
        """
        world.reset(self.conn)
        self.owner, self.other = world.register(self.first), world.register(self.first)
        self.claim, self.later = new_id(), new_id()
        self.job = new_id()
        delay = HOUR if state == "scheduled" else None
        row = Template("work", "default", 0, 5, HOUR, delay=delay, ttl=HOUR)
        self.jobs.database.run(statements.enqueue_many(row, [self.job], [Draft("{}")]))
        if state not in ("queued", "scheduled"):
            self.first.one(statements.claim(self.owner, self.claim, [Range(world.LANE)], 1))
        if state == "succeeded":
            world.complete(self.first, self.claim, [self.job])
        if state in ("dead", "succeeded"):
            self.first.one(statements.declare_dead([self.owner]))
        if state != "queued":
            self.conn.execute("UPDATE pgjobs.jobs SET expires_at = now()")
        self.conn.execute("UPDATE pgjobs.jobs SET due_at = now() WHERE due_at IS NOT NULL")
        self.conn.execute("UPDATE pgjobs.jobs SET started_at = now() - interval '2 hours' WHERE started_at IS NOT NULL")
        self.conn.execute("UPDATE pgjobs.workers SET seen_at = now() - interval '1 hour', misses = 6")


def settling(pair: Pair) -> Statement[Any]:
    nothing: dict[str, list[Any]] = {
        name: [None] for name in ("exceptions", "messages", "tracebacks", "fingerprints", "delays")
    }
    return statements.settle(
        {"ids": [pair.job], "claims": [pair.claim], "statuses": ["failed"], "reasons": ["error"], "refunds": [0]}
        | {"crashes": [0], "waits": [0.0], "seconds": [0.1]}
        | nothing
    )


STATEMENTS: Final[dict[str, Callable[[Pair], Statement[Any]]]] = {
    "claim": lambda pair: statements.claim(pair.other, pair.later, [Range(world.LANE)], 10),
    "complete": lambda pair: world.completion(pair.claim, [pair.job]),
    "settle": settling,
    "release": lambda pair: statements.release([pair.claim], [pair.job]),
    "reap": lambda pair: statements.reap(None, None, 3, "gone"),
    "time_out": lambda pair: statements.time_out(None, None),
    "promote": lambda pair: statements.promote(),
    "expire": lambda pair: statements.expire(world.EPOCH),
    "begin_suspects": lambda pair: statements.begin_suspects([pair.job], [pair.claim]),
    "cancel": lambda pair: statements.cancel([pair.job], "enough"),
    "retry": lambda pair: statements.retry([pair.job]),
    "delete": lambda pair: statements.delete([pair.job]),
    "complete_within": lambda pair: statements.complete_within(pair.job, pair.claim, "1", 0.1),
    "forget_claims": lambda pair: statements.forget_claims([pair.claim] if settled(pair) else []),
    "forget_dead_claims": lambda pair: statements.forget_dead_claims(),
    "beat": lambda pair: statements.beat([pair.owner, pair.other]),
    "mark_silent": lambda pair: statements.mark_silent(interrupted=False),
    "declare_dead": lambda pair: statements.declare_dead([pair.owner, pair.other]),
    "retire": lambda pair: statements.retire(pair.owner),
}


def settled(pair: Pair) -> bool:
    """Whether the worker may forget its claim."""
    row = pair.conn.execute("SELECT status FROM pgjobs.jobs").fetchone()
    return row is None or row[0] != "running"


ACTS: Final[dict[str, tuple[str, ...]]] = {
    "claim": ("queued",),
    "complete": ("running", "dead"),
    "settle": ("running", "dead"),
    "release": ("running", "dead"),
    "reap": ("dead",),
    "promote": ("scheduled",),
    "expire": ("scheduled",),
    "cancel": ("queued", "scheduled", "running"),
    "retry": ("succeeded",),
    "delete": ("queued", "running", "succeeded"),
    "forget_claims": ("succeeded",),
    "forget_dead_claims": ("succeeded",),
}
"""In which states of the job a statement writes something; where nothing is said, while it runs."""

WRITES_THE_JOB: Final = {
    "claim", "complete", "settle", "release", "reap", "time_out", "promote", "expire", "begin_suspects",
    "cancel", "retry", "delete", "complete_within",
}  # fmt: skip
WRITES_THE_WORKER: Final = {"beat", "mark_silent", "declare_dead", "retire"}

WAITS: Final[dict[str, set[str]]] = {
    # The application asks for the job itself, whoever has it.
    "cancel": WRITES_THE_JOB - {"retry"},
    "retry": {"retry", "delete"},
    "delete": WRITES_THE_JOB,
    "complete_within": WRITES_THE_JOB - {"claim", "promote", "expire", "retry"},
    # Whether the worker lives is decided by whoever comes first; each of these is over at once.
    "beat": WRITES_THE_WORKER,
    "declare_dead": WRITES_THE_WORKER,
    "retire": WRITES_THE_WORKER,
    "forget_claims": {"forget_claims", "forget_dead_claims"},
}


@pytest.fixture(scope="module")
def pair(server_url: str, template: str) -> Iterator[Pair]:
    with copy_of(server_url, template) as url:
        made = Pair(url)
        yield made
        made.close()


def run_beside(pair: Pair, first: str, second: str, *, commits: bool) -> bool:
    """Runs the second statement while the first is in an open transaction, again where it waited; returns whether."""
    before = world.rollups(pair.conn)
    pair.first.begin()
    results = [(first, pair.first.step(STATEMENTS[first](pair)), commits)]
    waited = False
    try:
        results.append((second, pair.second.one(STATEMENTS[second](pair)), True))
    except psycopg.errors.LockNotAvailable:
        waited = True
    pair.first.conn.execute("COMMIT" if commits else "ROLLBACK")
    if waited:
        results.append((second, pair.second.one(STATEMENTS[second](pair)), True))
    retried = sum(len(result) for name, result, stands in results if name == "retry" and stands)
    check(pair, world.rollups(pair.conn) - before, retried + (before.total() == 0))
    return waited


def check(pair: Pair, recorded: Counter[str], lives: int) -> None:
    """Nothing is wrong, no more ends are recorded than the job had lives, and it comes to its end."""
    assert world.violations(pair.conn) == {}
    ends = sum(recorded[status] for status in world.ENDED)
    row = pair.conn.execute("SELECT status FROM pgjobs.jobs").fetchone()
    if row is not None:
        assert ends == lives - (row[0] not in world.ENDED)
    assert ends <= lives
    assert world.finish(pair.third, pair.conn).total() == (row is not None)


@pytest.mark.parametrize("second", STATEMENTS)
@pytest.mark.parametrize("first", STATEMENTS)
def test_nothing_waits_and_nothing_is_lost(first: str, second: str, pair: Pair) -> None:
    waited = False
    for state in ACTS.get(first, ("running",)):
        for commits in (True, False):
            pair.put(state)
            waited |= run_beside(pair, first, second, commits=commits)
    assert waited == (first in WAITS.get(second, ()))


# -- a claim that has moved on, while another runs the job


@pytest.mark.parametrize("write", ["complete", "settle", "release", "complete_within", "begin_suspects", "reap"])
def test_claim_that_has_moved_on_writes_nothing_while_another_runs_the_job(write: str, pair: Pair) -> None:
    pair.put("running")
    pair.conn.execute("UPDATE pgjobs.jobs SET expires_at = NULL")
    pair.first.one(statements.release([pair.claim], [pair.job]))
    assert len(pair.first.one(STATEMENTS["claim"](pair))) == 1
    pair.first.one(statements.declare_dead([pair.owner]))
    before, ends = pair.conn.execute("SELECT job::text FROM pgjobs.jobs AS job").fetchall(), world.rollups(pair.conn)
    pair.second.one(STATEMENTS[write](pair))
    assert pair.conn.execute("SELECT job::text FROM pgjobs.jobs AS job").fetchall() == before
    assert world.rollups(pair.conn) == ends


def test_former_run_is_given_back_together_with_another_and_the_job_runs_on_under_its_new_claim(pair: Pair) -> None:
    """In one statement: of one claim this job, and of the claim that has this job now another one."""
    pair.put("running")
    pair.conn.execute("UPDATE pgjobs.jobs SET expires_at = NULL")
    pair.first.one(statements.release([pair.claim], [pair.job]))
    pair.conn.execute("INSERT INTO pgjobs.jobs (task, args) VALUES ('other', '{}')")
    claim, ids = world.claim(pair.first, pair.owner)
    assert len(ids) == 2
    (other,) = set(ids) - {pair.job}
    assert pair.first.one(statements.release([pair.claim, claim], [pair.job, other])).ids == [other]
    status = pair.conn.execute("SELECT status, claim_id FROM pgjobs.jobs WHERE id = %s", [pair.job]).fetchone()
    assert status == ("running", claim)


def test_failure_is_noted_once_though_its_row_was_written_while_it_was_recorded(pair: Pair) -> None:
    """Such a row is not recorded but sent again: what a cancel has changed between its reading and its lock."""
    world.reset(pair.conn)
    count = 2_000
    pair.conn.execute("INSERT INTO pgjobs.jobs (task, args) SELECT 'work', '{}' FROM generate_series(1, %s)", [count])
    worker = world.register(pair.first)
    claim, ids = world.claim(pair.first, worker, count)
    ids, stop = sorted(ids), threading.Event()

    def touch() -> None:
        for job_id in reversed(ids):
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                pair.second.one(statements.cancel([job_id], "enough"))
            if stop.is_set():
                break

    toucher = threading.Thread(target=touch)
    toucher.start()
    left = ids
    while left:
        columns: dict[str, list[Any]] = {
            "ids": left, "claims": [claim], "statuses": ["scheduled"], "reasons": ["error"],
            "refunds": [0], "crashes": [0], "waits": [0.0], "seconds": [0.1], "delays": [None],
            "exceptions": ["E"], "messages": ["m"], "tracebacks": [None], "fingerprints": [None],
        }  # fmt: skip
        columns = {name: values if name == "ids" else values * len(left) for name, values in columns.items()}
        recorded = {*pair.first.one(statements.settle(columns)).ids}
        left = [job_id for job_id in left if job_id not in recorded]
    stop.set()
    toucher.join()
    assert pair.conn.execute("SELECT count(*), count(DISTINCT job_id) FROM pgjobs.failures").fetchone() == (
        count,
        count,
    )


def test_jobs_that_follow_are_those_of_the_run_whose_end_is_recorded(pair: Pair) -> None:
    """Where one cycle has the outcomes of two runs of a job, of which the first has lost its claim."""
    pair.put("running")
    pair.conn.execute("UPDATE pgjobs.jobs SET expires_at = NULL")
    lost = pair.claim
    pair.first.one(statements.release([lost], [pair.job]))
    claim, _ = world.claim(pair.first, pair.owner)
    follows = [
        Child(str(new_id()), name, "default", 0, 5, None, None, None, None, "{}", None, None, lifo=False)
        for name in ("of the lost", "of the other")
    ]
    children = zip([(pair.job, lost), (pair.job, claim)], follows, strict=True)
    columns: dict[str, Any] = {
        "ids": [pair.job] * 2, "claims": [lost, claim], "results": [None] * 2, "waits": [0.0] * 2, "seconds": [0.1] * 2,
        "usages": None, "outputs": None,
    }  # fmt: skip
    recorded = pair.first.batch(statements.complete(columns), statements.enqueue_children(list(children)))[0]
    assert recorded.ids == [pair.job]
    assert pair.conn.execute("SELECT task FROM pgjobs.jobs WHERE id <> %s", [pair.job]).fetchall() == [
        ("of the other",)
    ]


def test_worker_times_out_nothing_that_another_runs_meanwhile(pair: Pair) -> None:
    pair.put("running")
    pair.conn.execute("UPDATE pgjobs.jobs SET expires_at = NULL")
    pair.first.one(statements.release([pair.claim], [pair.job]))
    assert len(pair.first.one(STATEMENTS["claim"](pair))) == 1
    assert pair.first.one(statements.time_out([pair.owner], [pair.job])) == []
    assert len(pair.first.one(statements.time_out([pair.other], [pair.job]))) == 1


@pytest.mark.parametrize(
    ("write", "state"), [("release", "running"), ("time_out", "running"), ("reap", "dead"), ("retry", "succeeded")]
)
def test_job_that_was_taken_from_its_claim_is_under_it_no_more(write: str, state: str, pair: Pair) -> None:
    pair.put(state)
    assert is_its_own(pair)
    pair.second.one(STATEMENTS[write](pair))
    assert not is_its_own(pair)


def is_its_own(pair: Pair) -> bool:
    """Whether a worker that has had no reply would take what became of the job for its own doing."""
    ((*_, ours),) = pair.first.one(statements.standing([pair.job], [pair.claim]))
    return bool(ours)


# -- who is believed dead, and what has expired


@pytest.mark.parametrize("interrupted", [False, True])
def test_worker_that_has_beaten_or_was_not_watched_is_not_believed_dead(interrupted: bool, pair: Pair) -> None:
    pair.put("running")
    pair.conn.execute("UPDATE pgjobs.workers SET missed_beat = beat")
    pair.conn.execute("UPDATE pgjobs.workers SET beat = beat + 1 WHERE id = %s", [pair.other])
    dead = pair.first.one(statements.mark_silent(interrupted=interrupted))
    assert [row[0] for row in dead] == ([] if interrupted else [pair.owner])
    misses = dict(pair.conn.execute("SELECT id, misses FROM pgjobs.workers").fetchall())
    assert misses == {pair.owner: 1 if interrupted else 7, pair.other: 1}


def test_worker_is_believed_dead_at_the_seventh_miss_and_not_before(pair: Pair) -> None:
    pair.put("running")
    pair.conn.execute("UPDATE pgjobs.workers SET missed_beat = beat, misses = 0")
    for count in range(1, 8):
        dead = {row[0] for row in pair.first.one(statements.mark_silent(interrupted=False))}
        assert dead == ({pair.owner, pair.other} if count == 7 else set()), f"after {count} misses"


def test_job_that_runs_does_not_expire(pair: Pair) -> None:
    pair.put("running")
    assert pair.first.one(statements.expire(world.EPOCH)).jobs == 0
    assert pair.conn.execute("SELECT status FROM pgjobs.jobs").fetchone() == ("running",)


# -- the reaper and a completion, in every order


def completing(pair: Pair) -> list[Callable[[Link], Any]]:
    return [
        lambda link: (link.begin(), link.step(world.completion(pair.claim, [pair.job]))),
        lambda link: link.step(statements.forget_claims([pair.claim] if settled(pair) else [])),
        lambda link: link.commit(),
    ]


def reaping(pair: Pair) -> list[Callable[[Link], Any]]:
    return [
        lambda link: (link.begin(), link.step(statements.declare_dead([pair.owner]))),
        lambda link: link.step(statements.reap(None, None, 3, "gone")),
        lambda link: link.step(statements.forget_dead_claims()),
        lambda link: link.commit(),
        lambda link: link.one(statements.claim(pair.other, pair.later, [Range(world.LANE)], 1)),
        lambda link: link.one(world.completion(pair.later, [pair.job])),
    ]


@pytest.mark.parametrize("state", ["running", "dead"])
def test_reaper_and_completion_in_every_order_record_one_success(state: str, pair: Pair) -> None:
    for places in combinations(range(9), 3):
        pair.put(state)
        pair.conn.execute("UPDATE pgjobs.jobs SET expires_at = NULL")
        mine, theirs = completing(pair), reaping(pair)
        for step in range(9):
            if step not in places:
                theirs.pop(0)(pair.second)
            elif mine:
                try:
                    mine.pop(0)(pair.first)
                except psycopg.errors.LockNotAvailable:
                    mine = []  # it waits for the reaper, is rolled back, and sent again when that has committed
        world.complete(pair.first, pair.claim, [pair.job])
        assert world.violations(pair.conn) == {}
        world.finish(pair.third, pair.conn)
        assert world.violations(pair.conn) == {}
        assert world.rollups(pair.conn) == {"succeeded": 1}, places


@pytest.mark.timeout(600)
def test_thousands_of_races_between_a_late_completion_and_a_new_claim_record_one_success_each(pair: Pair) -> None:
    world.reset(pair.conn)
    row = Template("work", "default", 0, 5, HOUR)
    won: Counter[str] = Counter()
    for batch in range(RACES // RACING):
        ids = [new_id() for _ in range(RACING)]
        pair.jobs.database.run(statements.enqueue_many(row, ids, [Draft("{}")] * RACING))
        owner, other = world.register(pair.first), world.register(pair.first)
        claim, taken = world.claim(pair.first, owner)
        assert sorted(taken) == sorted(ids)
        pair.first.one(statements.declare_dead([owner]))
        won += race(pair, claim, ids, other, random.Random(batch))
        pair.first.one(statements.forget_dead_claims())
    assert world.rollups(pair.conn) == {"succeeded": RACES}
    assert won.total() == RACES
    assert min(won["late"], won["anew"]) > RACES // 50, "there was a race"
    assert world.violations(pair.conn) == {}


def race(pair: Pair, claim: UUID, ids: list[UUID], other: UUID, chance: random.Random) -> Counter[str]:
    """One thread completes under the old claim while another reaps, claims and completes anew; counts who recorded."""
    won: Counter[str] = Counter()
    barrier = threading.Barrier(2)
    late = chance.sample(ids, len(ids))

    def complete_late() -> None:
        barrier.wait(10)
        for start in range(0, len(late), 10):
            won["late"] += len(world.complete(pair.first, claim, late[start : start + 10]))

    thread = threading.Thread(target=complete_late)
    thread.start()
    barrier.wait(10)
    left = True
    while left or thread.is_alive():
        reaped = pair.second.one(statements.reap(None, chance.choice([None, []]), 3, "gone"))
        anew, taken = world.claim(pair.second, other, 40)
        won["anew"] += len(world.complete(pair.second, anew, taken))
        left = bool(reaped or taken)
    thread.join()
    return won
