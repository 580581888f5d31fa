"""Whatever SQL writes into a row or sends as a notification: workers live on, neighbours run, nothing is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from pgjobs import Cancel, OptionError, PgJobs, Retry, current_job, statements
from pgjobs.cli import cli
from pgjobs.config import MAX_DOCUMENT_DEPTH
from pgjobs.connections.link import Link
from pgjobs.events import Event, Trouble
from pgjobs.job import new_id
from pgjobs.statements import Range
from tests.processes import WorkerProcess
from tests.support import eventually
from tests.test_budgets import register

pytestmark = pytest.mark.server


def nested(depth: int) -> str:
    return "[" * depth + "1" + "]" * depth


VALUES = [
    "null", "true", "-1", "0.5", "1e400", "-1e-400", "9" * 5_000, '""', '"\\u202e"', "[]", '["suspect"]', "{}",
    nested(MAX_DOCUMENT_DEPTH), nested(MAX_DOCUMENT_DEPTH + 1), nested(500), nested(990), nested(3_000),
]  # fmt: skip
ARGS = [f'{{"{name}": {value}}}' for name in ("a", "*", "x", "", "$encrypted", "self", "__class__") for value in VALUES]
ARGS += [f'{{"a": {value}, "*": {value}}}' for value in VALUES]
OPTIONS = [
    *VALUES,
    *(f'{{"{name}": {value}}}' for name in ("retry", "keep", "suspect", "private", "") for value in VALUES),
]
OPTIONS += [f'{{"suspect": {{"{name}": {value}}}}}' for name in ("of", "runs") for value in VALUES]
OPTIONS += [f'{{"suspect": {{"of": {value}, "runs": true}}}}' for value in (0, 1, 4, 16, 17, 10**9, -1)]
OPTIONS += [
    f'{{"retry": {{"backoff": {rest}, "cap": {cap}, "jitter": {cap}}}}}'
    for rest in VALUES
    for cap in ("1", "1e400", "[]")
]
NAMES = [
    "os:system", "builtins:__import__", "builtins:eval", "antigravity:fly", "antigravity", "this",
    "xml.dom.pulldom:parse", "tests.apps.basic:jobs", "../../etc/passwd", "a" * 10_000,
    "\x1b[2J\x07\r\n\t", "\u202e", ":", "::", "a:b:c", "os:", " ", "", ".", "__main__:x", "%s %(id)s", "'; --",
]  # fmt: skip
QUEUES = [" ", "*", "a,b:3", "x" * 1_000, "\n\t\x1b[31m", "ü", "'; DROP TABLE pgjobs.jobs --", "%s", "\u202e"]
PAYLOADS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30) | st.sampled_from([
    "queued", "queued 0", "queued x y", "queued 99999999999 default", f"queued {'9' * 500} default",
    "restored 0 99999999999999999999 default", "restored 0 9223372036854775807 default", "restored 0 -1 default",
    f"restored 0 {'9' * 400} q", "restored", "cancelled",
])  # fmt: skip


def rows() -> Iterator[dict[str, Any]]:
    """Rows each of which is strange in one way, for tasks of every kind."""
    for task in ("take", "take_any", "sealed", "nothing"):
        for args in ARGS:
            yield {"task": task, "args": args}
        for options in OPTIONS:
            yield {"task": task, "options": options}
    for name in NAMES:
        yield {"task": name}
    for queue in QUEUES:
        yield {"task": "nothing", "queue": queue}
    for value in VALUES:
        yield {"task": "nothing", "meta": value, "result": value, "progress": value}
    for count in (-1, 1, 32_766, 32_767):
        for column in ("attempt", "crashes"):
            yield {"task": "fails", column: count}
    for timeout in ("-1 day", "0", "0.000001 s", "100000 years", "178000000 years"):
        yield {"task": "nothing", "timeout": timeout}


class Imports(MetaPathFinder):
    """Notes whatever is imported, and finds nothing."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        self.names.append(name)


@contextmanager
def no_imports() -> Iterator[None]:
    """Fails if anything is imported meanwhile, by whatever thread."""
    watch = Imports()
    sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        sys.meta_path.remove(watch)
    assert watch.names == []


def insert(conn: psycopg.Connection[Any], row: dict[str, Any]) -> None:
    """Writes a row as somebody who may write anything; what PostgreSQL itself refuses is nobody's trouble."""
    query = sql.SQL("INSERT INTO pgjobs.jobs ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(sql.SQL("%s") for _ in row)
    )
    with suppress(psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex):
        conn.execute(query, list(row.values()))


@contextmanager
def at_work(jobs: PgJobs, conn: psycopg.Connection[Any]) -> Iterator[list[Event]]:
    """A worker with some tasks, warm, so that what it imports by itself it has imported."""

    @jobs.task(name="take")
    def take(a: int, b: str = "") -> int:
        return a

    @jobs.task(name="take_any")
    async def take_any(*args: Any, **kwargs: Any) -> None: ...

    @jobs.task(name="sealed", encrypt=True)
    def sealed(a: int) -> None: ...

    @jobs.task(name="nothing")
    def nothing() -> None: ...

    @jobs.task(name="fails", retry=Retry(backoff=0))
    def fails(z: int = 0) -> None:
        raise ValueError

    @jobs.task(name="neighbour")
    def neighbour() -> str:
        return "ran"

    events: list[Event] = []
    with jobs.worker(emit=events.append):
        assert jobs.enqueue("neighbour").get(10) == "ran"
        for task in ("nobody", "nobody:here", "take", "take_any", "sealed", "fails"):
            insert(conn, {"task": task, "args": '{"z": 1}', "max_attempts": 1})
        eventually(lambda: not still_open(conn))
        yield events
    assert [event for event in events if isinstance(event, Trouble)] == []


def still_open(conn: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """What neither has ended nor waits with a reason."""
    return conn.execute(
        "SELECT left(task, 30), left(queue, 30), status, attempt, crashes, left(args::text, 60),"
        "       left(options::text, 90)"
        "  FROM pgjobs.jobs"
        " WHERE status IN ('queued', 'running') OR status <> 'succeeded' AND reason IS NULL"
    ).fetchall()


def test_worker_survives_whatever_stands_in_its_rows(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    conn.execute("ALTER TABLE pgjobs.jobs DISABLE TRIGGER check_queue")  # some may be from before there was one
    with at_work(jobs, conn), no_imports():
        for row in rows():
            insert(conn, row)
        assert jobs.enqueue("neighbour").get(10) == "ran"
        left: list[tuple[Any, ...]] = []

        def all_seen_to() -> bool:
            left[:] = still_open(conn)
            return not left

        with suppress(AssertionError):
            eventually(all_seen_to, timeout_s=30)
        assert left == []


@pytest.mark.filterwarnings("ignore:Do not use the .random. module")  # the worker's threads do, meanwhile
def test_worker_survives_whatever_it_is_told(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    with at_work(jobs, conn):

        @settings(max_examples=20, deadline=None)
        @given(payloads=st.lists(PAYLOADS, min_size=10, max_size=40))
        def survive(payloads: list[str]) -> None:
            for payload in payloads:
                conn.execute("SELECT pg_notify('pgjobs.jobs', %s)", [payload[:7_000]])
            assert jobs.enqueue("neighbour").get(10) == "ran"

        survive()


def test_dead_workers_are_reaped_and_old_jobs_pruned_whatever_their_options(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    link = Link(jobs.database, "test")
    worker = register(link)
    for options in OPTIONS:
        insert(conn, {"task": "nothing", "options": options, "crashes": 32_767})
    held = link.one(statements.claim(worker, new_id(), [Range(("default", 0))], 1_000))
    link.one(statements.declare_dead([worker]))
    assert len(link.one(statements.reap(None, None, 3, "lost"))) == len(held) > 100
    conn.execute(
        "UPDATE pgjobs.jobs SET status = 'succeeded', position = NULL, finished_at = now() - interval '200 years'"
    )
    assert link.one(statements.prune(UUID(int=0), 0.0, 1.0, 1.0)).count == len(held)
    link.close()


@pytest.mark.parametrize("is_async", [False, True])
def test_worker_survives_whatever_a_job_ends_with(is_async: bool, jobs: PgJobs) -> None:
    reasons: list[Any] = ["a\0b", "\ud800", 5, {"a": object()}, "x" * 100_000]

    def ends(n: int) -> None:
        raise Cancel(reasons[n])

    async def aends(n: int) -> None:
        raise Cancel(reasons[n])

    ended = jobs.task(name="ends")(aends if is_async else ends)
    well = jobs.task(name="well")(lambda: "well")
    cancelled = [ended.enqueue(n) for n in range(len(reasons))]
    others = [well.enqueue() for _ in range(20)]
    jobs.worker(burst=True).run()
    assert {job.get(0) for job in others} == {"well"}
    assert [(job.refresh().status, (job.reason or "")[:6]) for job in cancelled] == [
        ("cancelled", reason) for reason in (r"a\0b", r"\ud800", "5", "{'a': ", "xxxxxx")
    ]


@pytest.mark.parametrize(("name", "kind"), [("a\0b", None), ("\ud800", None), (5, None), ("a", "\0"), ("a", "\ud800")])
def test_file_that_cannot_be_named_is_refused_in_words(name: Any, kind: Any, jobs: PgJobs) -> None:
    @jobs.task(name="t")
    def attach() -> str:
        with pytest.raises(OptionError, match="give a text without NUL"):
            current_job().attach(name, b"x", kind)
        return "refused"

    job = attach.enqueue()
    jobs.worker(burst=True).run()
    assert job.get(0) == "refused"


def test_position_that_was_never_drawn_holds_up_no_queue(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    with at_work(jobs, conn):
        for position in (2**62, -(2**62), 10**9):
            insert(conn, {"task": "nothing", "position": position})
        eventually(lambda: not still_open(conn))
        claimed = [jobs.enqueue("neighbour").get(0.9) for _ in range(10)]
    assert claimed == ["ran"] * 10


FORGED = "evil\x1b]0;owned\x07\x1b[2J\r\n13:00:00 INFO  succeeded  payments.charge  forged\x9b31m\u202e\x7f"
READING = (
    ("info",), ("doctor",), ("tasks", "list"), ("queues", "list"), ("jobs", "list"), ("jobs", "show", "{id}"),
    ("jobs", "explain", "{id}"), ("mark", "--list"), ("tail", "-n", "1000"), ("failures",), ("check",),
    ("jobs", "export", "--format", "csv", "-o", "{file}"), ("jobs", "export", "-o", "{file}"),
    ("jobs", "list", "--json"), ("jobs", "show", "{id}", "--json"), ("info", "--json"),
    ("tail", "--json", "-n", "1000"), ("mark", "--list", "--json"), ("doctor", "--json"),
)  # fmt: skip
NEVER = {"status": "scheduled", "position": None}
VEXING: list[dict[str, Any]] = [
    {"task": FORGED, "queue": FORGED, "args": f'{{"a": {nested(6_000)}}}', "meta": f'{{"a": {nested(900)}}}'},
    {"task": "nobody", "args": f'{{"a": {nested(400)}}}', "options": nested(6_000)},
    {"task": "nobody", "args": '{"a\\u001b[2J": "\u009b31m\u202e"}', "expires_at": "infinity"},
    {"task": FORGED, "due_at": "290000-01-01", "run_at": "290000-01-01", **NEVER},
    {"task": "nobody", "timeout": "178000000 years", "due_at": "-infinity", **NEVER},
    {"task": "fails", "args": "{}", "max_attempts": 1},
]


@pytest.fixture
def vexing(jobs: PgJobs, conn: psycopg.Connection[Any]) -> list[UUID]:
    """Rows that a producer may write to vex whoever reads them; a worker has seen them."""
    for row in VEXING:
        insert(conn, row)
    conn.execute(
        "INSERT INTO pgjobs.marks (text, author, at) VALUES (%(a)s, %(a)s, now()), (%(a)s, %(a)s, 'infinity')",
        {"a": FORGED},
    )

    @jobs.task(name="fails")
    def fails() -> None:
        raise ValueError(FORGED.replace("\n", " "))

    jobs.worker(burst=True).run()
    return [row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs ORDER BY id").fetchall()]


def test_whatever_stands_in_rows_is_shown_and_steers_no_terminal(
    vexing: list[UUID], jobs: PgJobs, database_url: str, tmp_path: Path
) -> None:
    assert [jobs.job(job_id).id for job_id in vexing] == vexing
    for command in READING:
        for job_id in vexing if "{id}" in command else vexing[:1]:
            words = [word.format(id=job_id, file=tmp_path / "out") for word in command]
            done = CliRunner().invoke(cli, words, env={"PGJOBS_URL": database_url})
            said = done.stdout + done.stderr
            assert done.exit_code < 3, (command, said)
            assert done.exception is None or isinstance(done.exception, SystemExit), (command, done.exception)
            steering = {character for character in said if not character.isprintable()} - {"\n"}
            assert not steering, (command, said)
            assert not [line for line in said.splitlines() if line.startswith("13:00:00")], command


def test_log_of_a_worker_is_steered_by_no_name(database_url: str, conn: psycopg.Connection[Any]) -> None:
    insert(conn, {"task": FORGED})
    with WorkerProcess(database_url).ready() as worker:
        eventually(lambda: worker.said("unknown task"))
        worker.signal(15)
        worker.leave()
    assert [line for line in worker.lines if line.startswith("13:00:00") or not line.isprintable()] == []


@pytest.mark.parametrize(
    ("channel", "seen_at"), [("", "now"), ("x" * 100, "now"), ("of.old", "infinity"), ("of.old", "290000-01-01")]
)
def test_waiters_that_nobody_can_be_told_of_are_passed_over(
    channel: str, seen_at: str, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("INSERT INTO pgjobs.waiters (channel, seen_at) VALUES (%s, %s)", [channel, seen_at])
    link = Link(jobs.database, "test")
    link.one(statements.tidy())
    assert conn.execute("SELECT seen_at = 'now' FROM pgjobs.waiters").fetchall() == [(False,)] * (seen_at == "now")
    conn.execute(
        "INSERT INTO pgjobs.waiters (channel, seen_at) VALUES (%s, %s) ON CONFLICT DO NOTHING", [channel, seen_at]
    )
    assert told(link) == []
    conn.execute("INSERT INTO pgjobs.waiters SELECT 'w' || i FROM generate_series(1, 3000) AS i")
    assert 0 < len(told(link)) <= 1_000
    link.close()


def told(link: Link) -> list[str]:
    """The channels that a completion brings back, whatever it records."""
    successes = ("ids", "claims", "results", "waits", "seconds")
    others = (
        "ids", "claims", "statuses", "reasons", "delays", "refunds", "crashes", "waits", "seconds",
        "exceptions", "messages", "tracebacks", "fingerprints",
    )  # fmt: skip
    recorded = [
        link.one(statements.complete({name: [] for name in successes})),
        link.one(statements.settle({name: [] for name in others})),
    ]
    assert recorded[0].channels == recorded[1].channels
    return recorded[0].channels
