"""What plain SQL, from psql or another language, may rely on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum
from itertools import pairwise
from typing import Any, Literal
from uuid import RFC_4122, UUID, uuid4

import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pgjobs import PgJobs, Retry, Status, statements
from pgjobs.connections.link import Link

pytestmark = pytest.mark.server


@dataclass
class Place:
    x: int


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


def one(conn: psycopg.Connection, query: str, **params: object) -> dict[str, Any]:
    row = conn.cursor(row_factory=dict_row).execute(query, params).fetchone()
    assert row is not None
    return row


def job(conn: psycopg.Connection, call: str) -> dict[str, Any]:
    """The row that a call of ``pgjobs.enqueue`` has written."""
    row = conn.execute(f"SELECT {call}").fetchone()
    assert row is not None
    return one(conn, "SELECT * FROM pgjobs.jobs WHERE id = %(id)s", id=row[0])


def claim(conn: psycopg.Connection, *ids: UUID) -> UUID:
    """Gives jobs to a worker, as a claim does."""
    worker, claim_id = uuid4(), uuid4()
    conn.execute(
        "INSERT INTO pgjobs.workers (id, supervisor_id, name, host, pid, queues, slots)"
        " VALUES (%s, %s, 'ada.1', 'ada', 42, '{*}', 16)",
        (worker, worker),
    )
    conn.execute(
        "INSERT INTO pgjobs.claims (id, worker_id, job_ids, positions)"
        " SELECT %s, %s, array_agg(id), array_agg(position) FROM pgjobs.jobs WHERE id = ANY(%s)",
        (claim_id, worker, list(ids)),
    )
    conn.execute(
        "UPDATE pgjobs.jobs SET status = 'running', position = NULL, claim_id = %s, attempt = attempt + 1,"
        " started_at = now() WHERE id = ANY(%s)",
        (claim_id, list(ids)),
    )
    return claim_id


def test_inserted_row_needs_a_task_and_its_arguments_only(conn: psycopg.Connection) -> None:
    row = one(conn, """INSERT INTO pgjobs.jobs (task, args) VALUES ('mail.send', '{"to": "ann"}') RETURNING *""")
    assert (row["status"], row["queue"], row["priority"], row["attempt"], row["max_attempts"]) == (
        "queued",
        "default",
        0,
        0,
        5,
    )
    assert row["position"] is not None
    assert row["timeout"] == timedelta(hours=1)
    assert (row["run_at"], row["due_at"], row["expires_at"], row["claim_id"]) == (None, None, None, None)
    assert row["args"] == {"to": "ann"}


def test_inserted_rows_are_claimed_in_the_order_of_their_insertion(conn: psycopg.Connection) -> None:
    conn.execute("INSERT INTO pgjobs.jobs (task) SELECT number::text FROM generate_series(1, 100) AS number")
    rows = conn.execute("SELECT task FROM pgjobs.jobs WHERE position IS NOT NULL ORDER BY position").fetchall()
    assert [int(task) for (task,) in rows] == list(range(1, 101))


@pytest.mark.parametrize(
    ("columns", "values", "constraint"),
    [
        # It would run at once.
        ("run_at", "now() + interval '1 hour'", "jobs_run_at_needs_due_at"),
        ("status, position", "'scheduled', NULL", "jobs_due_at_means_scheduled"),
        ("due_at", "now()", "jobs_due_at_means_scheduled"),
        ("position", "NULL", "jobs_position_means_queued"),
        ("status", "'succeeded'", "jobs_position_means_queued"),
        ("status, position", "'done', NULL", "jobs_status_is_known"),
        ("priority", "101", "jobs_priority_range"),
        ("max_attempts", "0", "jobs_max_attempts_positive"),
        ("args", "'[1]'", "jobs_args_is_object"),
    ],
)
def test_row_that_contradicts_itself_is_refused(
    columns: str, values: str, constraint: str, conn: psycopg.Connection
) -> None:
    with pytest.raises(errors.CheckViolation) as raised:
        conn.execute(f"INSERT INTO pgjobs.jobs (task, {columns}) VALUES ('late', {values})")
    assert raised.value.diag.constraint_name == constraint


def test_row_with_run_at_is_taken_as_scheduled_with_due_at(conn: psycopg.Connection) -> None:
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, status, position, run_at, due_at)"
        " SELECT 'later', 'scheduled', NULL, at, at FROM (SELECT now() + interval '1 hour') AS due (at)"
    )


def test_waiting_jobs_cannot_share_a_unique_key(conn: psycopg.Connection) -> None:
    conn.execute("INSERT INTO pgjobs.jobs (task, unique_key) VALUES ('once', 'key')")
    with pytest.raises(errors.UniqueViolation):
        conn.execute("INSERT INTO pgjobs.jobs (task, unique_key) VALUES ('once', 'key')")


def test_enqueue_takes_a_task_alone(conn: psycopg.Connection) -> None:
    row = job(conn, "pgjobs.enqueue('nightly')")
    assert (row["status"], row["queue"], row["args"], row["due_at"]) == ("queued", "default", {}, None)
    inserted = one(conn, "INSERT INTO pgjobs.jobs (task) VALUES ('nightly') RETURNING *")
    own = ("id", "position", "created_at")
    assert {k: v for k, v in row.items() if k not in own} == {k: v for k, v in inserted.items() if k not in own}


def test_enqueue_takes_every_setting(conn: psycopg.Connection) -> None:
    row = job(
        conn,
        """pgjobs.enqueue('mail.send', '{"to": "ann"}', queue => 'mail', priority => 10, ttl => '1 day',
                          timeout => '30 s', max_attempts => 3)""",
    )
    assert (row["queue"], row["priority"], row["max_attempts"]) == ("mail", 10, 3)
    assert row["timeout"] == timedelta(seconds=30)
    assert abs(row["expires_at"] - row["created_at"] - timedelta(days=1)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("fits", "misfits"),
    [
        ({"place": {"x": 1}}, {"place": 5}),
        ({"place": None}, {"place": "here"}),
        ({"colour": "red"}, {"colour": 5}),
        ({"level": 1}, {"level": "one"}),
        ({"side": "left"}, {"side": ["left"]}),
    ],
)
def test_arguments_of_types_of_ones_own_are_checked_too(
    fits: dict[str, Any], misfits: dict[str, Any], conn: psycopg.Connection, jobs: PgJobs
) -> None:
    def draw(place: Any = None, colour: Any = "red", level: Any = 1, side: Any = "left") -> None: ...

    draw.__annotations__ = {"place": Place | None, "colour": Colour, "level": Level, "side": Literal["left", "right"]}
    jobs.task(name="draw")(draw)
    with jobs.worker():
        pass
    enqueue = "SELECT pgjobs.enqueue('draw', %s)"
    conn.execute(enqueue, [Jsonb(fits)])
    with pytest.raises(errors.InvalidParameterValue, match=f"argument {next(iter(misfits))} is of type"):
        conn.execute(enqueue, [Jsonb(misfits)])


@pytest.mark.parametrize("when", ["delay => '1 hour'", "run_at => now() + interval '1 hour'"])
def test_enqueue_for_later_is_scheduled(when: str, conn: psycopg.Connection) -> None:
    row = job(conn, f"pgjobs.enqueue('later', {when})")
    assert (row["status"], row["position"]) == ("scheduled", None)
    assert row["run_at"] == row["due_at"]
    assert abs(row["due_at"] - row["created_at"] - timedelta(hours=1)) < timedelta(minutes=1)


@pytest.mark.parametrize("when", ["delay => '0'", "run_at => now() - interval '1 hour'"])
def test_enqueue_for_a_time_that_has_come_is_queued(when: str, conn: psycopg.Connection) -> None:
    row = job(conn, f"pgjobs.enqueue('at once', {when})")
    assert (row["status"], row["due_at"]) == ("queued", None)
    assert row["run_at"] is not None


def test_enqueue_without_a_timeout_has_none(conn: psycopg.Connection) -> None:
    assert job(conn, "pgjobs.enqueue('long', timeout => NULL)")["timeout"] is None


@pytest.mark.parametrize(
    ("idle_on", "call", "told"),
    [
        ("mail", "pgjobs.enqueue('t', queue => 'mail')", ["queued 0 mail"]),
        ("*", "pgjobs.enqueue('t', queue => 'mail')", ["queued 0 mail"]),
        ("other", "pgjobs.enqueue('t', queue => 'mail')", []),
        # Workers look for the next due time by themselves.
        ("mail", "pgjobs.enqueue('t', queue => 'mail', delay => '1 hour')", []),
    ],
)
def test_enqueue_wakes_whoever_is_idle_on_the_queue(
    idle_on: str, call: str, told: list[str], conn: psycopg.Connection, direct_url: str
) -> None:
    conn.execute("INSERT INTO pgjobs.idlers (queue, worker_id) VALUES (%s, %s)", (idle_on, uuid4()))
    assert notified(direct_url, conn, call) == told


def notified(url: str, conn: psycopg.Connection, call: str) -> list[str]:
    """What a listener hears of a call, up to a word that is sent after it."""
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute('LISTEN "pgjobs.jobs"')
        conn.execute(f"SELECT {call}")
        conn.execute("NOTIFY \"pgjobs.jobs\", 'end'")
        heard = []
        for notice in listener.notifies(timeout=30):
            if notice.payload == "end":
                break
            heard.append(notice.payload)
        return heard


def test_running_says_what_runs_where(conn: psycopg.Connection) -> None:
    first = job(conn, "pgjobs.enqueue('mail.send')")
    job(conn, "pgjobs.enqueue('waiting')")
    ended = job(conn, "pgjobs.enqueue('ended')")
    claim_id = claim(conn, first["id"], ended["id"])
    conn.execute("UPDATE pgjobs.jobs SET status = 'succeeded', finished_at = now() WHERE id = %s", (ended["id"],))
    row = one(conn, "SELECT * FROM pgjobs.running")
    assert (row["id"], row["task"], row["claim_id"]) == (first["id"], "mail.send", claim_id)
    assert (row["worker"], row["host"], row["pid"], row["attempt"]) == ("ada.1", "ada", 42, 1)


def test_queue_stats_say_how_every_queue_stands(conn: psycopg.Connection) -> None:
    queued = job(conn, "pgjobs.enqueue('t', queue => 'mail')")
    running = job(conn, "pgjobs.enqueue('t', queue => 'mail')")
    due = job(conn, "pgjobs.enqueue('t', queue => 'mail', delay => '1 hour')")
    claim(conn, running["id"])
    conn.execute(
        "INSERT INTO pgjobs.rollups SELECT now(), 'mail', 't', status, 3, jobs, seconds"
        "  FROM (VALUES ('succeeded', 4, 2.0), ('failed', 1, 9.0), ('retried', 2, 9.0)) AS of (status, jobs, seconds)"
    )
    conn.execute("INSERT INTO pgjobs.rollups VALUES (now(), 'quiet', 't', 'expired', 0, 7, 0)")
    assert one(conn, "SELECT * FROM pgjobs.queue_stats WHERE queue = 'mail'") == {
        "queue": "mail",
        "queued": 1,
        "running": 1,
        "scheduled": 1,
        "succeeded": 4,
        "failed": 1,
        "cancelled": 0,
        "expired": 0,
        "retried": 2,
        "oldest_queued_at": queued["created_at"],
        "next_due_at": due["due_at"],
        "mean_seconds": 0.5,
    }
    quiet = one(conn, "SELECT * FROM pgjobs.queue_stats WHERE queue = 'quiet'")
    assert (quiet["queued"], quiet["expired"], quiet["mean_seconds"]) == (0, 7, None)


def test_uuidv7_is_of_version_seven_and_ordered_by_time(conn: psycopg.Connection) -> None:
    def now() -> int:
        return int(one(conn, "SELECT extract(epoch FROM clock_timestamp()) * 1000 AS now")["now"])

    before = now()
    ids = [made for (made,) in conn.execute("SELECT pgjobs.uuidv7() FROM generate_series(1, 2000)")]
    after = now()
    assert {(made.version, made.variant) for made in ids} == {(7, RFC_4122)}
    assert len(set(ids)) == len(ids)
    times = [made.int >> 80 for made in ids]
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= after
    assert sum(one < next for one, next in pairwise(ids)) > 0.95 * len(ids)  # one clock ticks by the microsecond


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0, 0), (0.0009, 0), (0.001, 1), (0.0019, 1), (0.002, 2), (1, 10), (1048, 20), (1048.576, 21), (1e9, 21)],
)
def test_duration_bucket_is_the_power_of_two_above(seconds: float, bucket: int, conn: psycopg.Connection) -> None:
    assert one(conn, "SELECT pgjobs.duration_bucket(%(seconds)s) AS bucket", seconds=seconds)["bucket"] == bucket


def test_duties_are_known_from_the_start(conn: psycopg.Connection) -> None:
    names = {name for (name,) in conn.execute("SELECT name FROM pgjobs.duties WHERE next_at <= now()")}
    assert {"reap", "expire", "roll_up", "prune", "tidy"} <= names


# -- a start that was asked for, and does not lie behind any more


@pytest.fixture
def link(jobs: PgJobs) -> Iterator[Link]:
    made = Link(jobs.database, "test")
    yield made
    made.close()


def test_job_that_was_brought_forward_starts_and_holds_up_no_other(link: Link, conn: psycopg.Connection) -> None:
    for _ in range(2):
        conn.execute("SELECT pgjobs.enqueue('work', delay => '1 hour')")
    conn.execute("UPDATE pgjobs.jobs SET due_at = now()")
    assert link.one(statements.promote()) == 2


@pytest.mark.parametrize("back", ["release", "reap"])
def test_clock_that_was_turned_back_keeps_no_job_from_going_back(
    back: str, link: Link, conn: psycopg.Connection
) -> None:
    waited = job(conn, "pgjobs.enqueue('work', run_at => now() - interval '1 minute')")["id"]
    claim_id = claim(conn, waited)
    conn.execute("UPDATE pgjobs.jobs SET run_at = now() + interval '1 hour'")
    if back == "release":
        assert link.one(statements.release([claim_id], [waited])).ids == [waited]
    else:
        conn.execute("UPDATE pgjobs.workers SET dead_at = now()")
        assert link.one(statements.reap(None, None, 3, "gone")) == [(waited, "queued")]


@pytest.mark.parametrize("steered", ["move", "replace"])
def test_clock_that_was_turned_back_keeps_no_job_from_being_steered(
    steered: str, jobs: PgJobs, conn: psycopg.Connection
) -> None:
    """A queued job whose start lies ahead is one that no statement could write now: it was written before."""
    waits = jobs.job(
        job(conn, "pgjobs.enqueue('work', unique_key => 'k', run_at => now() - interval '1 minute')")["id"]
    )
    conn.execute("ALTER TABLE pgjobs.jobs DROP CONSTRAINT jobs_run_at_needs_due_at")
    conn.execute("UPDATE pgjobs.jobs SET run_at = now() + interval '1 hour'")
    conn.execute(
        "ALTER TABLE pgjobs.jobs ADD CONSTRAINT jobs_run_at_needs_due_at CHECK (status <> 'queued' OR run_at IS NULL"
        " OR claim_id IS NOT NULL OR run_at <= clock_timestamp()) NOT VALID"
    )
    if steered == "move":
        assert waits.move("other").prioritize(9).queue == "other"
    else:
        jobs.database.run(statements.replace_args("k", '{"a": 1}', None))
        assert waits.refresh().args == {"a": 1}
    assert waits.status is Status.QUEUED


def test_start_that_lies_ahead_stays_where_a_job_is_steered_that_is_not_queued(
    jobs: PgJobs, conn: psycopg.Connection
) -> None:
    later = jobs.job(job(conn, "pgjobs.enqueue('work', delay => '1 hour', unique_key => 'k')")["id"])
    due = later.row.run_at
    assert later.move("other").row.run_at == due
    jobs.database.run(statements.replace_args("k", "{}", None))
    assert later.refresh().row.run_at == due


# -- rows that SQL has written, and their neighbours


LONG = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 190))"
"""Six thousand characters that fit no index, since they cannot be compressed."""


@pytest.mark.parametrize(
    ("queue", "says"),
    [
        ("''", "queue '' has 0 characters; give it a name, of 100 at most"),
        ("repeat('x', 101)", "has 101 characters; give it a name, of 100 at most"),
        (LONG, "has 6080 characters"),
    ],
)
@pytest.mark.parametrize("status", ["queued", "scheduled"])
def test_row_with_a_queue_that_nobody_could_find_is_refused(
    queue: str, says: str, status: str, jobs: PgJobs, conn: psycopg.Connection
) -> None:
    place = "'queued', 1, NULL" if status == "queued" else "'scheduled', NULL::bigint, now()"
    refused = (errors.CheckViolation, errors.ProgramLimitExceeded) if queue == LONG else errors.CheckViolation
    with pytest.raises(refused, match="index row size" if (queue, status) == (LONG, "queued") else says):
        conn.execute(f"INSERT INTO pgjobs.jobs (task, queue, status, position, due_at) SELECT 't', {queue}, {place}")  # type: ignore[call-overload]
    waits = jobs.enqueue("t")
    with pytest.raises(errors.CheckViolation, match=says):
        conn.execute(f"SELECT pgjobs.move(ARRAY['{waits.id}'::uuid], {queue})")  # type: ignore[call-overload]
    assert waits.refresh().queue == "default"


@pytest.mark.parametrize("queue", ["x" * 100, "@01a22701-0000-7000-8000-000000000000", "ü" * 100, " "])
def test_row_may_have_any_queue_that_can_be_found(queue: str, conn: psycopg.Connection) -> None:
    conn.execute("INSERT INTO pgjobs.jobs (task, queue) VALUES ('t', %s)", [queue])
    assert one(conn, "SELECT queue FROM pgjobs.jobs")["queue"] == queue


@pytest.mark.parametrize("queue", ["", "x" * 1_000])
def test_row_from_before_there_was_a_limit_is_written_as_any_other(
    queue: str, link: Link, jobs: PgJobs, conn: psycopg.Connection
) -> None:
    conn.execute("ALTER TABLE pgjobs.jobs DISABLE TRIGGER check_queue")
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, queue, status, position, due_at) VALUES ('t', %s, 'scheduled', NULL, now())",
        [queue],
    )
    conn.execute("ALTER TABLE pgjobs.jobs ENABLE TRIGGER check_queue")
    assert link.one(statements.promote()) == 1
    (old,) = [jobs.job(row[0]) for row in conn.execute("SELECT id FROM pgjobs.jobs").fetchall()]
    assert old.prioritize(3).hold().unhold().move("mail").queue == "mail"


def test_task_with_a_name_that_fits_no_index_stops_no_duty(jobs: PgJobs, link: Link, conn: psycopg.Connection) -> None:
    """The name of a task stands in no index that a duty writes, and in no notification."""
    conn.execute(f"INSERT INTO pgjobs.jobs (task, status, position, due_at) SELECT {LONG}, 'scheduled', NULL, now()")  # type: ignore[call-overload]
    conn.execute("INSERT INTO pgjobs.jobs (task, status, position, due_at) VALUES ('t', 'scheduled', NULL, now())")
    assert link.one(statements.promote()) == 2
    ids = [row[0] for row in conn.execute("SELECT id FROM pgjobs.jobs").fetchall()]
    claim(conn, *ids)
    conn.execute("UPDATE pgjobs.workers SET dead_at = now()")
    assert len(link.one(statements.reap(None, None, 3, "gone"))) == 2
    assert len(jobs.cancel(ids)) == 2
    assert one(conn, "SELECT count(*) FROM pgjobs.rollups WHERE status = 'cancelled'")["count"] == 2


@pytest.mark.parametrize("timeout", ["178000000 years", "-178000000 years"])
def test_timeout_that_no_moment_can_be_made_of_keeps_no_other_from_ending(
    timeout: str, link: Link, conn: psycopg.Connection
) -> None:
    late = job(conn, "pgjobs.enqueue('t')")["id"]
    strange = one(conn, "INSERT INTO pgjobs.jobs (task, timeout) VALUES ('t', %(t)s) RETURNING id", t=timeout)["id"]
    endless = job(conn, "pgjobs.enqueue('t', timeout => NULL)")["id"]
    claim(conn, late, strange, endless)
    conn.execute("UPDATE pgjobs.jobs SET started_at = now() - interval '2 hours'")
    ended = {row[0] for row in link.one(statements.time_out(None, None))}
    assert ended == ({late, strange} if timeout.startswith("-") else {late})


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("infinity", datetime(9999, 12, 30, tzinfo=UTC)),
        ("12000-01-01 00:00+00", datetime(9999, 12, 30, tzinfo=UTC)),
        ("-infinity", datetime(1, 1, 2, tzinfo=UTC)),
        ("0044-03-15 00:00+00 BC", datetime(1, 1, 2, tzinfo=UTC)),
    ],
)
def test_moments_that_python_has_not_are_read_as_the_last_that_it_has(
    moment: str, shown: datetime, conn: psycopg.Connection, jobs: PgJobs
) -> None:
    row = one(
        conn,
        "INSERT INTO pgjobs.jobs (task, status, position, run_at, due_at, expires_at, created_at, cancel_at)"
        " VALUES ('t', 'scheduled', NULL, %(at)s, %(at)s, %(at)s, %(at)s, %(at)s) RETURNING id",
        at=moment,
    )
    read = jobs.job(row["id"])
    assert read.row.due_at == read.row.run_at == read.row.expires_at == read.row.created_at == shown
    assert read.refresh().row.cancel_at == shown
    run = jobs.database.run
    assert run(statements.jobs(statements.Selection([each.value for each in Status]), 10))[0].due_at == shown
    assert run(statements.jobs_by_id([read.id]))[read.id].due_at == shown
    assert run(statements.export_jobs(statements.Selection(["scheduled"])))[0].due_at == shown
    read.cancel()
    ended = run(statements.ended([read.id]))[read.id]
    assert ended is not None
    assert ended.expires_at == shown


def test_row_that_was_made_at_no_time_does_not_stop_a_claim(conn: psycopg.Connection, jobs: PgJobs) -> None:
    jobs.task(name="t")(lambda: 1)
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, created_at, options) VALUES ('t', 'infinity', NULL), ('t', '-infinity', NULL),"
        " ('t', 'infinity', '{\"late\": 5}'), ('t', now(), NULL)"
    )
    jobs.worker(burst=True).run()
    assert conn.execute("SELECT DISTINCT status FROM pgjobs.jobs").fetchall() == [("succeeded",)]


def test_pause_without_an_end_may_be_said_so(conn: psycopg.Connection, jobs: PgJobs) -> None:
    conn.execute("SELECT pgjobs.pause('queue', 'mail', NULL, 'infinity')")
    assert [pause.until for pause in jobs.pauses()] == [datetime(9999, 12, 30, tzinfo=UTC)]


@pytest.mark.parametrize(
    "policy",
    [
        Retry(9, backoff=3, cap=20, jitter=False),
        Retry(9, backoff="linear", base=2, jitter=False),
        Retry(9, backoff=[1, 7, 4], jitter=False),
        Retry(9, backoff=0, jitter=False),
        Retry(9, backoff="1h", cap="1d", jitter=False),
    ],
)
def test_rest_of_a_policy_is_the_same_in_sql(policy: Retry, conn: psycopg.Connection) -> None:
    options = Jsonb({"retry": policy.document()})
    for attempt in (1, 2, 3, 4, 100):
        assert conn.execute("SELECT pgjobs.rest_s(%s, %s)", (options, attempt)).fetchone() == (policy.rest_s(attempt),)


@pytest.mark.parametrize("options", [None, {}, [], {"retry": 5}, {"retry": {"backoff": []}}, {"retry": {"cap": "x"}}])
def test_rest_without_a_policy_is_the_default_one(options: Any, conn: psycopg.Connection) -> None:
    stored = None if options is None else Jsonb(options)
    for attempt, most in ((1, 5), (3, 20), (32_000, 3600)):
        row = conn.execute(
            "SELECT max(pgjobs.rest_s(%s, %s)) FROM generate_series(1, 50)", (stored, attempt)
        ).fetchone()
        assert row is not None
        assert most * 0.5 < row[0] <= most


def test_attempt_that_a_duty_ends_rests_as_its_row_says(conn: psycopg.Connection, jobs: PgJobs) -> None:
    made = jobs.using(retry=Retry(3, backoff="2h", cap="3h", jitter=False)).enqueue("t")
    claim(conn, made.id)
    jobs.database.run(statements.time_out(None, [made.id]))
    rest = one(conn, "SELECT due_at - now() AS rest FROM pgjobs.jobs WHERE id = %(id)s", id=made.id)["rest"]
    assert timedelta(hours=1.9) < rest <= timedelta(hours=2)
