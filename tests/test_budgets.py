"""What the hot path may cost, in what can be counted: plans, buffers, statements, commits, WAL, HOT updates."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from pgjobs import PgJobs, statements
from pgjobs.connections.link import PLANNED_ANEW, PLANNED_ONCE, Link, Results
from pgjobs.events import Event, Trouble
from pgjobs.job import Draft, Template, new_id, new_ids
from pgjobs.statements import Query, Range, Statement
from tests.support import eventually, stop_sweeping

pytestmark = pytest.mark.server

HUGE = 300_000


def noop_task(jobs: PgJobs) -> Any:
    @jobs.task(name="noop")
    async def noop(i: int) -> None: ...

    return noop


# -- plans


def explain(conn: psycopg.Connection[Any], statement: Statement[Any], *, planned: bool = True) -> dict[str, Any]:
    """Runs the statement as a worker does, and takes it back; returns its plan with the buffers it touched."""
    with conn.transaction(force_rollback=True):
        if planned:
            conn.execute(PLANNED_ANEW)
        text = statement.query.text("pgjobs").encode()
        row = conn.execute(
            b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + text, statement.params, prepare=False
        ).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def buffers(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def scans_of_jobs(plan: dict[str, Any]) -> list[str]:
    return [
        node["Node Type"]
        for node in nodes(plan)
        if node.get("Relation Name") == "jobs" and node["Node Type"] in ("Seq Scan", "Bitmap Heap Scan")
    ]


def template(**options: Any) -> Template:
    return Template("noop", "default", 0, 5, None, **options)


def register(link: Link) -> UUID:
    worker = new_id()
    link.one(
        statements.register(worker, supervisor=worker, name="w", host="h", pid=1, process="{}", queues=["*"], slots=9)
    )
    return worker


def claim_some(link: Link, worker: UUID, count: int) -> tuple[UUID, list[UUID]]:
    claim = new_id()
    lane = [Range(("default", 0))]
    rows = link.one(statements.claim(worker, claim, lane, count))
    return claim, [row[0] for row in rows]


def fill(conn: psycopg.Connection[Any], count: int, status: str) -> None:
    """Adds rows of a status, in the middle of which the queries have to find theirs."""
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, args, status, position, due_at, finished_at)"
        " SELECT 'noop', '{\"i\": 1}', %(status)s,"
        "        CASE WHEN %(status)s = 'queued' THEN nextval('pgjobs.positions') END,"
        "        CASE WHEN %(status)s = 'scheduled' THEN now() + interval '1 day' END,"
        "        CASE WHEN %(status)s = 'succeeded' THEN now() END"
        "   FROM generate_series(1, %(count)s)",
        {"count": count, "status": status},
    )


def hot_statements(link: Link, conn: psycopg.Connection[Any]) -> dict[str, tuple[Statement[Any], int]]:
    """Every statement of the hot path, with the buffers that it may touch for its ten rows at most."""
    worker = register(link)
    fill(conn, 40, "queued")
    conn.execute("UPDATE pgjobs.jobs SET priority = 1 WHERE id IN (SELECT id FROM pgjobs.jobs LIMIT 1)")
    claim, ids = claim_some(link, worker, 10)
    lanes = [("default", 1), ("default", 0), ("other", 0)]
    ranges = [Range(lane) for lane in lanes]
    columns = {
        "ids": ids,
        "claims": [claim] * 10,
        "results": ["1"] * 10,
        "waits": [0.0] * 10,
        "seconds": [0.1] * 10,
    }
    ends = columns | {
        "statuses": ["scheduled"] * 10,
        "reasons": ["error"] * 10,
        "delays": [1.0] * 10,
        "refunds": [0] * 10,
        "crashes": [0] * 10,
        "exceptions": ["E"] * 10,
        "messages": ["m"] * 10,
        "tracebacks": ["t"] * 10,
        "fingerprints": ["f"] * 10,
    }
    del ends["results"]
    return {
        "claim": (statements.claim(worker, new_id(), ranges, 10), 400),
        "bounds": (statements.bounds(ranges), 40),
        "new_lanes": (statements.new_lanes(lanes, queues_too=True), 120),
        "new_lanes_of_none": (statements.new_lanes([], queues_too=True), 60),
        "strays": (statements.strays(ranges), 120),
        "note_lanes": (statements.note_lanes(ranges), 20),
        "noted_lanes": (statements.noted_lanes(), 20),
        "idle": (statements.idle(worker, new_id(), ["*"]), 40),
        "busy": (statements.busy(worker), 40),
        "complete": (statements.complete(columns), 400),
        "settle": (statements.settle(ends), 600),
        "account": (statements.account([(job_id, claim, None, "said") for job_id in ids]), 400),
        "notify": (statements.notify("queued 0 default"), 4),
        "tell": (statements.tell(["pgjobs.done.somebody"], [ids[0].hex]), 20),
        "standing": (statements.standing(ids, [claim] * 10), 100),
        "release": (statements.release([claim] * 10, ids), 600),
        "forget_claims": (statements.forget_claims([claim]), 60),
        "reconcile": (statements.reconcile(worker), 40),
        "alive": (statements.alive(worker), 20),
        "beat": (statements.beat([worker]), 40),
        "promote": (statements.promote(2.0), 60),
        "promote_all": (statements.promote(), 60),
        "next_due": (statements.next_due(2.0), 20),
        "next_due_of_all": (statements.next_due(), 20),
        "expire": (statements.expire(None), 60),
        "reap": (statements.reap([worker], ids, 3, "gone"), 100),
        "enqueue": (statements.enqueue(template(), new_id(), '{"i": 1}'), 60),
        "enqueue_many": (statements.enqueue_many(template(), new_ids(10), [Draft('{"i": 1}')] * 10), 400),
        "somebody_idle": (statements.somebody_idle("default"), 20),
        "job": (statements.job(ids[0]), 20),
        "failures": (statements.failures(ids[0]), 20),
        "cancel": (statements.cancel(ids, "test"), 600),
        "retry": (statements.retry([ids[0]]), 60),
        "delete": (statements.delete([ids[0]]), 60),
        "to_be_stopped": (statements.to_be_stopped(ids, [claim] * 10), 100),
        "reap_any": (statements.reap(None, None, 3, "gone"), 100),
        "forget_dead_claims": (statements.forget_dead_claims(), 100),
        "begin_suspects": (statements.begin_suspects(ids, [claim] * 10), 100),
        "time_out": (statements.time_out([worker], ids), 600),
        "time_out_any": (statements.time_out(None, None), 100),
        "neighbours": (statements.neighbours("boot", "pids"), 20),
        "unrunnable": (statements.unrunnable(), 60),
        "complete_within": (statements.complete_within(ids[0], claim, "1", 0.1), 60),
    }


def assert_plans_are_good(hot: dict[str, tuple[Statement[Any], int]], conn: psycopg.Connection[Any]) -> None:
    bad: dict[str, Any] = {}
    explain(conn, statements.delete([new_id()]))  # a session reads the catalogue of the tables that it meets once
    for name, (statement, most) in hot.items():
        plan = explain(conn, statement)
        if (found := scans_of_jobs(plan)) or buffers(plan) > most:
            bad[name] = (found, buffers(plan))
    assert not bad


@pytest.fixture
def still(conn: psycopg.Connection[Any], jobs: PgJobs) -> Iterator[Link]:
    """A link to a database whose statistics nobody renews."""
    for table in ("jobs", "claims", "workers", "idlers", "failures"):
        conn.execute(f"ALTER TABLE pgjobs.{table} SET (autovacuum_enabled = false)".encode())
    link = Link(jobs.database, "test")
    yield link
    link.close()


def test_plans_on_an_empty_table(still: Link, conn: psycopg.Connection[Any]) -> None:
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    assert_plans_are_good(hot_statements(still, conn), conn)


@pytest.mark.slow
@pytest.mark.parametrize("status", ["queued", "succeeded", "scheduled"])
def test_plans_when_the_table_has_grown_since_it_was_analyzed_empty(
    status: str, still: Link, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    fill(conn, HUGE, status)
    assert_plans_are_good(hot_statements(still, conn), conn)


@pytest.mark.slow
@pytest.mark.parametrize("status", ["queued", "succeeded"])
def test_plans_when_statistics_know_another_status_than_the_table_has(
    status: str, still: Link, conn: psycopg.Connection[Any]
) -> None:
    fill(conn, HUGE, status)
    conn.execute("ANALYZE pgjobs.jobs")
    if status == "queued":
        conn.execute("UPDATE pgjobs.jobs SET status = 'succeeded', position = NULL, finished_at = now()")
    else:
        conn.execute(
            "UPDATE pgjobs.jobs SET status = 'queued', position = nextval('pgjobs.positions'), finished_at = NULL"
        )
    conn.execute("VACUUM pgjobs.jobs")  # the dead entries are the matter of another test
    assert_plans_are_good(hot_statements(still, conn), conn)


@pytest.mark.slow
@pytest.mark.parametrize("status", ["queued", "succeeded", "scheduled"])
def test_plans_that_are_kept_from_empty_tables_serve_when_they_are_huge(
    status: str, still: Link, direct_url: str, conn: psycopg.Connection[Any]
) -> None:
    """Those of the claimer's cycle: when they are made nothing stands in any table, and the statistics know it."""
    kept = {name: each for name, (each, _) in hot_statements(still, conn).items() if each.keeps_plan}
    assert {each.query.name for each in kept.values()} == said_to_keep_their_plans()
    tables = conn.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'pgjobs'::regnamespace AND relkind = 'r'"
    )
    emptied = [table for (table,) in tables.fetchall() if table not in ("pgjobs.duties", "pgjobs.revision")]
    conn.execute(f"TRUNCATE {', '.join(emptied)}".encode())
    for table in emptied:
        conn.execute(f"VACUUM ANALYZE {table}".encode())
    with psycopg.connect(direct_url, autocommit=True, cursor_factory=psycopg.ClientCursor[Any]) as own:
        for name, statement in kept.items():
            own.execute(f"PREPARE {name} AS {statement.query.numbered('pgjobs')[0]}".encode())
            explain_kept(own, name, statement)
        fill(conn, HUGE, status)
        bad: dict[str, Any] = {}
        for name, (statement, most) in hot_statements(still, conn).items():
            if name in kept:
                plan = explain_kept(own, name, statement)
                if (found := scans_of_jobs(plan)) or buffers(plan) > most:
                    bad[name] = (found, buffers(plan))
        assert not bad
        assert own.execute("SELECT sum(custom_plans) FROM pg_prepared_statements").fetchone() == (0,)


def said_to_keep_their_plans() -> set[str]:
    source = "".join(path.read_text() for path in Path(statements.__file__).parent.glob("*.py"))
    return set(re.findall(r'Statement\(\s*QUERIES\["(\w+)"\](?:(?!Statement\().)*?keeps_plan=True', source, re.DOTALL))


def explain_kept(conn: psycopg.Connection[Any], name: str, statement: Statement[Any]) -> dict[str, Any]:
    """Runs a statement that the session has prepared, as a worker does, and takes it back."""
    names = statement.query.numbered("pgjobs")[1]
    values = f"({', '.join(['%s'] * len(names))})" if names else ""
    with conn.transaction(force_rollback=True):
        conn.execute(PLANNED_ONCE)
        row = conn.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name}{values}".encode(),
            [statement.params[each] for each in names],
        ).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


@pytest.mark.slow
def test_plans_cached_while_the_table_was_empty_serve_no_more_when_it_is_huge(
    still: Link, jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    """The worker's connection and the application's have run every statement a dozen times before the table grew."""
    conn.execute("VACUUM ANALYZE pgjobs.jobs")
    task = noop_task(jobs)
    worker = register(still)
    missing, claim = new_id(), new_id()
    columns: dict[str, Any] = {"ids": [missing], "claims": [claim], "results": [None], "waits": [0.0], "seconds": [0.0]}
    for _ in range(12):
        claim_some(still, worker, 10)
        still.batch(
            statements.complete(columns),
            statements.standing([missing], [claim]),
            statements.new_lanes([], queues_too=True),
        )
        jobs.database.run(statements.job(missing))
        jobs.database.run(statements.retry([missing]))
    fill(conn, HUGE, "succeeded")
    ids = task.enqueue_many([(i,) for i in range(10)])
    with jobs.database.connection() as own:
        pid = own.info.backend_pid
    before = {pid: heap_reads(conn)}
    claim, taken = claim_some(still, worker, 10)
    assert sorted(taken) == sorted(ids)
    columns = {"ids": taken, "claims": [claim] * 10, "results": [None] * 10, "waits": [0.0] * 10, "seconds": [0.0] * 10}
    assert len(still.one(statements.complete(columns)).ids) == 10
    jobs.job(ids[0])
    jobs.database.run(statements.retry([ids[0]]))
    assert heap_reads(conn) - before[pid] < 1_000, "a scan of the table would read some ten thousand pages"


def heap_reads(conn: psycopg.Connection[Any]) -> int:
    """Rows of jobs that sequential scans have read, by everybody."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    eventually(lambda: conn.execute("SELECT pg_stat_clear_snapshot()"))
    row = conn.execute("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = 'pgjobs.jobs'::regclass").fetchone()
    assert row is not None
    return int(row[0])


# -- dead entries


@pytest.mark.slow
def test_claim_does_not_read_what_is_dead_below_its_bound(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    """30,000 index entries that no vacuum may take away, because an old transaction might still want them."""
    task = noop_task(jobs)
    link = Link(jobs.database, "test")
    prober = register(link)
    task.enqueue_many([(i,) for i in range(100)])
    clean = explain(conn, claim_of(prober, 0))
    with psycopg.connect(database_url) as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1 FROM pgjobs.jobs LIMIT 1")
        task.enqueue_many([(i,) for i in range(30_000)])
        with jobs.worker() as worker:
            eventually(lambda: left(conn) == 0, timeout_s=60)
            lanes = worker._life_now().claimer._lanes
            eventually(lambda: lanes.low(("default", 0)) > 30_000)
            low = lanes.low(("default", 0))
        task.enqueue_many([(i,) for i in range(100)])
        prober = register(link)  # the first one has not beaten for all that time
        laden = explain(conn, claim_of(prober, low))
        without_bound = explain(conn, claim_of(prober, 0))
    assert laden["Actual Rows"] == clean["Actual Rows"] == 100
    assert buffers(laden) <= 2 * buffers(clean)
    assert buffers(without_bound) > 3 * buffers(clean), "the dead entries are there indeed"
    link.close()


def claim_of(worker: UUID, low: int) -> Statement[Any]:
    return statements.claim(worker, uuid4(), [Range(("default", 0), low)], 100)


def left(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE status <> 'succeeded'").fetchone()
    assert row is not None
    return int(row[0])


# -- statements and commits


@pytest.mark.parametrize("jobs_in_all", [1, 10, 1_000])
def test_a_batch_takes_the_same_number_of_statements_whatever_its_size(
    jobs_in_all: int, jobs: PgJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, ...]] = []
    batch = Link.batch

    def recorded(self: Link, *wanted: Statement[Any], meanwhile: Callable[[], None] | None = None) -> Results:
        if self._name == "pgjobs worker":
            sent.append(tuple(statement.query.name for statement in wanted))
        return batch(self, *wanted, meanwhile=meanwhile)

    noop_task(jobs).enqueue_many([(i,) for i in range(jobs_in_all)])
    monkeypatch.setattr(Link, "batch", recorded)
    jobs.worker(burst=True).run()
    completing = [names for names in sent if "complete" in names]
    assert max(len(names) for names in sent) <= 6, sent
    assert all(names.count("complete") == names.count("claim") == 1 or "claim" not in names for names in completing)
    assert len(sent) <= 20 + jobs_in_all // 4, "many jobs share a cycle"


def test_a_batch_takes_one_commit(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    link = Link(jobs.database, "test")
    worker = register(link)
    noop_task(jobs).enqueue_many([(i,) for i in range(500)])
    claim, ids = claim_some(link, worker, 250)
    columns = {"ids": ids, "claims": [claim] * 250, "results": [None] * 250, "waits": [0.0] * 250}
    before = commits_of(link)
    lane = [Range(("default", 0))]
    link.batch(
        statements.complete(columns | {"seconds": [0.0] * 250}),
        statements.forget_claims([claim]),
        statements.claim(worker, new_id(), lane, 250),
    )
    assert commits_of(link) - before == 1
    assert conn.execute("SELECT status, count(*) FROM pgjobs.jobs GROUP BY 1 ORDER BY 1").fetchall() == [
        ("running", 250),
        ("succeeded", 250),
    ]
    link.close()


def commits_of(link: Link) -> int:
    """Transactions with an id that this backend's database has seen: a commit that writes takes one."""
    row = link.conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.slow
def test_a_jobs_life_is_cheap_to_write(
    jobs: PgJobs, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bulk enqueue, claim, completion: HOT updates and bytes of WAL, without full-page images.

    A page is pruned once no snapshot needs its dead rows, which a busy machine delays: the best of three rounds counts.
    """
    if conn.execute("SHOW full_page_writes").fetchone() != ("off",):
        pytest.skip("this server writes full-page images; the suite's own does not")
    # On a machine that stands still for half a second jobs are given back, which is another life than this one.
    monkeypatch.setattr("pgjobs.worker.claiming.slots.STALE_S", 60.0)
    task = noop_task(jobs)
    rounds = [_a_life(task, jobs, conn, 20_000)]
    while rounds[-1][1] < 0.8 and len(rounds) < 3:
        rounds.append(_a_life(task, jobs, conn, 20_000))
    assert max(wal for wal, _ in rounds) <= 1_000
    assert max(hot for _, hot in rounds) >= 0.8, rounds


def _a_life(task: Any, jobs: PgJobs, conn: psycopg.Connection[Any], count: int) -> tuple[float, float]:
    """Bytes of WAL a job, and the part of the completions that were HOT."""
    conn.execute("TRUNCATE pgjobs.jobs")
    conn.execute("CHECKPOINT")
    updates = _updates(conn)
    start = conn.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    task.enqueue_many([(i,) for i in range(count)])
    jobs.worker(burst=True).run()
    row = conn.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)::float8", start).fetchone()
    assert row is not None
    assert left(conn) == 0
    eventually(lambda: _updates(conn)[0] >= updates[0] + 2 * count)
    total, hot = _updates(conn)
    assert total - updates[0] == 2 * count, "one update to claim a job, one to complete it"
    return row[0] / count, (hot - updates[1]) / count


def _updates(conn: psycopg.Connection[Any]) -> tuple[int, int]:
    found = conn.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'pgjobs.jobs'::regclass"
    ).fetchone()
    assert found is not None
    return found


# -- isolation


def test_everything_works_where_transactions_are_serializable_by_default(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    name = conn.info.dbname
    conn.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'".encode())
    conn.execute(f"ALTER DATABASE {name} SET default_transaction_deferrable = on".encode())
    own = PgJobs(database_url)
    link = Link(own.database, "test")
    isolation = Statement(Query("isolation", "SHOW transaction_isolation"), {}, lambda rows: rows[0][0])
    assert link.one(isolation) == "read committed"
    link.close()
    task = noop_task(own)
    fail = own.task(name="fail", retry=1)(lambda: 1 / 0)

    def produce() -> None:
        for i in range(50):
            task.enqueue(i)
            task.using(delay=0.01).enqueue(i)
        fail.enqueue()
        task.enqueue_many([(i,) for i in range(1_500)])

    producers = [threading.Thread(target=produce) for _ in range(3)]
    with own.worker(concurrency=4), own.worker(concurrency=4):
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        eventually(lambda: statuses(conn) == {"succeeded": 3 * 1_600, "failed": 3}, timeout_s=30)
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs WHERE attempt <> 1").fetchone() == (0,)
    own.close()


def statuses(conn: psycopg.Connection[Any]) -> dict[str, int]:
    return json.loads(
        json.dumps(dict(conn.execute("SELECT status, count(*)::int FROM pgjobs.jobs GROUP BY 1").fetchall()))
    )


def test_notification_names_the_lane(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """To look for a lane is to read all dead entries of a queue: with 500,000 of them a pick-up took 128 ms, not 3."""
    task = jobs.task(name="work")(lambda i: i)
    with jobs.worker() as worker:
        stop_sweeping(worker._life_now().claimer)
        for priority in (0, 7, -7):
            assert task.using(priority=priority).enqueue(1).get(15) == 1
        row = conn.execute("SELECT pgjobs.enqueue('work', '{\"i\": 2}', priority => 3)").fetchone()
        assert row is not None
        assert jobs.job(row[0]).get(15) == 2
        assert task.using(priority=9, delay=0.1).enqueue(3).get(15) == 3


@pytest.mark.parametrize(
    "payload",
    ["", "queued", "queued mail", "queued x mail", "queued 99999 mail", "queued 0 a b c", "restored 0 mail"]
    + [f"restored 0 {position} mail" for position in (-9, 10**20, -(10**20))],
)
def test_anybody_may_notify_anything(payload: str, jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    """It does no harm, and where it can't be read the worker looks for itself."""
    events: list[Event] = []
    task = jobs.task(name="work")(lambda i: i)
    with jobs.worker(emit=events.append):
        assert task.enqueue(1).get(15) == 1
        conn.execute("SELECT pg_notify('pgjobs.jobs', %s)", [payload])
        for queue in ("default", "mail"):
            assert task.using(queue=queue).enqueue(2).get(15) == 2
    assert not [event for event in events if isinstance(event, Trouble)]
