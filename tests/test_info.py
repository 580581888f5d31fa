"""pgjobs info: what it says, that it fits any terminal, what it may cost, and how it ends."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from rich.console import Console

from pgjobs import PgJobs
from pgjobs.cli.picture import picture
from pgjobs.insight.overview import (
    ENDED,
    Forecast,
    Overview,
    QueueLine,
    QueueView,
    WorkerLine,
    ends_per_s,
    overview,
    per_s_of,
)
from pgjobs.job import new_id
from pgjobs.statements import Arrivals, Mark, Pace, Pause, Query, Statement, Steps
from pgjobs.wording import about, rate
from tests.processes import PGJOBS, ROOT, environment, pgjobs
from tests.sql.test_reporting import explain, fill, nodes
from tests.support import eventually

PAGES = 20_000
"""Buffers that one look may touch with 100,000 ended jobs, 35,000 queued ones and a month of rollups."""


# -- what it draws


def queue(name: str, running: int = 0, queued: int = 0, scheduled: int = 0, blocked: int = 0, **more: Any) -> QueueView:
    line = QueueLine(name, queued, running, scheduled, 1_234_567, 89, 3, 0, 45, 754.0 if queued else None)
    return QueueView(line, blocked, hour={"succeeded": 12_345, "failed": 6}, **more)


def worker(name: str, running: int = 0, silent_s: float = 1.0, *, stopping: bool = False) -> WorkerLine:
    started = datetime.now(UTC) - timedelta(hours=5)
    return WorkerLine(new_id(), name, "host", 1, ["mail", "default", "*"], 16, started, silent_s, stopping, running)


def lived_in() -> Overview:
    paused = Pause("queue", "reports", "a move", datetime.now(UTC), None)
    queues = [
        queue("default", 16, 1_204, 12, per_s=30.0, arrivals_per_s=25.0),
        queue("imports.of.a.very.long.name.indeed.and.even.longer", 3, 20_117, 4, per_s=10.0, arrivals_per_s=40.0),
        queue("mail", 2, 0, 3, per_s=3.0),
        queue("reports", 0, 31, 1, 7, pause=paused),
        queue("nobody", 0, 5, is_served=False),
    ]
    workers = [
        worker("ada:1.0", 16),
        worker("ada:2.0"),
        worker("bob:1.0", 3, 12.0),
        worker("eve:1.0", 2, stopping=True),
    ]
    mark = Mark(1, datetime.now(UTC) - timedelta(minutes=12), "v1.2.3", "ann", "ada")
    hour = {"retried": 45, "succeeded": 12_345, "failed": 6}
    return Overview(queues, workers, hour, [("gone.send", "unknown task", 2)], [paused], mark)


def drawn(width: int, seen: Overview | None = None, **options: Any) -> list[str]:
    out = Console(file=io.StringIO(), width=width, highlight=False, **options)
    out.print(picture(seen or lived_in()))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100, 120, 200])
def test_picture_fits_a_terminal_of_any_width(width: int) -> None:
    lines = drawn(width)
    assert max(map(len, lines)) <= width
    heads = [index for index, line in enumerate(lines) if line.split()[:1] == ["queue"]]
    assert len(heads) == 1
    rows = lines[heads[0] + 1 : heads[0] + 6]
    assert [re.sub("^‖ ", "", row)[:4] for row in rows] == ["defa", "impo", "mail", "repo", "nobo"], "a line a queue"
    assert sum("▓" in row for row in rows) >= 3, "the bars are there"


def test_columns_are_dropped_the_least_important_first() -> None:
    kept = {width: next(line for line in drawn(width) if line.startswith("queue ")) for width in (40, 60, 80, 120, 200)}
    titles = {width: set(re.split(r" {2,}", line)) for width, line in kept.items()}
    assert titles[40] <= titles[60] <= titles[80] <= titles[120] <= titles[200]
    assert "queued" in titles[40]
    assert {"running", "failed", "oldest"} <= titles[80]
    assert {"outlook", "rate", "scheduled"} <= titles[120]
    assert {"handled", "handled 1h", "failed 1h", "blocked"} <= titles[200]
    every = re.split(r" {2,}", kept[200])
    assert len(every) == len(set(every)), "no two columns have one title"


def test_picture_says_all_of_it() -> None:
    text = "\n".join(drawn(200))
    for words in (
        "4 workers, 1 busy, 1 idle, 1 suspect, 1 stopping",
        "last hour: 12,345 succeeded, 6 failed, 45 retried",
        "last mark: v1.2.3, 12 min ago",
        "drains in 4 min at 5.0/s",
        "grows by 30/s",
        "‖ reports",
        "paused",
        "no worker serves it",
        "2 jobs of gone.send cannot run here: unknown task",
        "█ running  ▓ queued  ▒ scheduled  ░ blocked  ‖ paused",
    ):
        assert words in text


def test_colours_tell_the_parts_of_a_bar_apart_and_shades_where_there_are_none() -> None:
    coloured = "\n".join(drawn(120, force_terminal=True, color_system="standard"))
    assert "\x1b[36m▇" in coloured
    assert "▓" not in coloured
    for options in ({"no_color": True, "force_terminal": True}, {}):
        assert "▓" in "\n".join(drawn(120, **options))
    plain = "\n".join(drawn(120))
    assert "\x1b" not in plain


def test_empty_database_is_no_error_in_any_width() -> None:
    for width in (20, 80):
        text = "\n".join(drawn(width, Overview([], [], {}, [], [], None)))
        assert "no queue has had" in text
        assert "last hour: nothing" in text


# -- forecasts


@pytest.mark.parametrize(
    ("view", "forecast"),
    [
        (queue("q", queued=100, per_s=30.0, arrivals_per_s=10.0), Forecast("drains", 20.0, 5.0)),
        (queue("q", queued=100, per_s=10.0, arrivals_per_s=30.0), Forecast("grows", 20.0)),
        (queue("q", queued=100, per_s=0.0, arrivals_per_s=3.0), Forecast("grows", 3.0)),
        (queue("q", queued=100, per_s=10.0, arrivals_per_s=9.8), Forecast("level", 10.0)),
        (queue("q", queued=0, per_s=10.0, arrivals_per_s=1.0), None),
        (queue("q", queued=100, per_s=0.0, arrivals_per_s=0.0), None),
        (queue("q", queued=100, per_s=10.0, arrivals_per_s=None), None),
        (queue("q", queued=100, scheduled=101, per_s=10.0), None),
        (queue("q", queued=100, per_s=10.0, pause=Pause("queue", "q", None, datetime.now(UTC), None)), None),
    ],
)
def test_forecast_is_said_where_it_can_be(view: QueueView, forecast: Forecast | None) -> None:
    assert view.forecast == forecast


def test_rate_counts_from_the_first_minute_in_which_there_was_anything() -> None:
    assert ends_per_s([]) == 0.0
    assert ends_per_s([Pace("q", "succeeded", 900, 600, 200.0), Pace("q", "failed", 30, 30, 60.0)]) == 630 / 200
    assert ends_per_s([Pace("q", "succeeded", 5, 5, 0.5)]) == 0.5, "ten seconds at least"
    assert ends_per_s([Pace("q", "retried", 9, 9, 60.0), Pace("q", "succeeded", 9, 0, None)]) == 0.0
    assert {"retried", "snoozed"}.isdisjoint(ENDED)


def test_many_arrivals_at_once_say_nothing() -> None:
    assert per_s_of(Arrivals("q", 10_000, 1.0)) is None
    assert per_s_of(Arrivals("q", 10_000, 20.0)) == 500.0
    assert per_s_of(None) == 0.0


def test_numbers_are_said_as_people_do() -> None:
    assert [rate(value) for value in (0.0, 0.0005, 0.05, 3.42, 1234.5)] == [
        "0/s",
        "1.8/h",
        "3.0/min",
        "3.4/s",
        "1,234/s",
    ]
    said = [about(value) for value in (-1, 7, 89, 240, 7_300, 200_000)]
    assert said == ["0 s", "7 s", "89 s", "4 min", "2 h", "2 d"]


# -- what it reads


@pytest.mark.server
def test_what_it_reads_is_so(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    add = jobs.task(name="add", queue="mail")(lambda a: a)
    boom = jobs.task(name="boom", queue="mail", retry=1)(lambda: 1 / 0)
    add.enqueue_many([(i,) for i in range(20)])
    boom.enqueue()
    jobs.worker(max_jobs=21, queues="mail").run()
    add.enqueue_many([(i,) for i in range(5)])
    add.using(delay=3600).enqueue(1)
    add.enqueue(1).hold()
    jobs.pause("reports", reason="a move")
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '20 s' WHERE position IS NOT NULL")
    with jobs.worker(queues="other", name="mine"):
        conn.execute("UPDATE pgjobs.workers SET stopping_at = now()")
        jobs.mark("v1.2.3")
        seen = jobs.database.look(overview())
    mail, reports = seen.queues
    assert (mail.name, *mail.waiting) == ("mail", 0, 5, 1, 1)
    assert (mail.handled, mail.handled_hour, mail.line.failed, mail.failed_hour) == (21, 21, 1, 1)
    assert 21 / 300 < mail.per_s <= 2.1
    assert mail.arrivals_per_s == pytest.approx(27 / 60), "the scheduled one may not run yet"
    assert mail.line.oldest_s is not None
    assert 19 < mail.line.oldest_s < 60
    assert not mail.is_served
    assert reports.pause is not None
    assert (reports.name, reports.pause.reason, reports.is_served) == ("reports", "a move", False)
    assert seen.states == {"stopping": 1}
    assert seen.mark is not None
    assert seen.mark.text == "v1.2.3"
    json.loads(json.dumps(seen.document(), default=str))


@pytest.mark.server
def test_blocked_jobs_are_counted_up_to_a_thousand_and_estimated_beyond(
    jobs: PgJobs, conn: psycopg.Connection[Any]
) -> None:
    def blocked() -> dict[str, int]:
        return {queue.name: queue.blocked for queue in jobs.database.look(overview()).queues}

    task = jobs.task(name="t")(lambda i: i)
    jobs.hold(task.enqueue_many([(i,) for i in range(800)]))
    jobs.hold(task.using(queue="b").enqueue_many([(i,) for i in range(200)]))
    assert blocked() == {"default": 800, "b": 200}
    jobs.hold(task.enqueue_many([(i,) for i in range(4_000)]))
    conn.execute("ANALYZE pgjobs.holds")
    assert sum(blocked().values()) == pytest.approx(5_000, rel=0.05)


@pytest.mark.server
def test_a_look_is_one_moment_and_compiles_nothing(jobs: PgJobs) -> None:
    def steps() -> Steps[list[Any]]:
        query = Query("moment", "SELECT now(), current_setting('jit'), pg_backend_pid()")
        first: Any = yield Statement(query, {}, list)
        second: Any = yield Statement(query, {}, list)
        return [*first, *second]

    first, second = jobs.database.look(steps())
    assert first == second
    assert first[1] == "off"


@pytest.mark.server
def test_a_look_reads_few_pages_and_never_a_large_table(jobs: PgJobs, conn: psycopg.Connection[Any]) -> None:
    fill(conn)
    conn.execute("INSERT INTO pgjobs.jobs (task, queue) SELECT 'task', 'many' FROM generate_series(1, 30000)")
    conn.execute("VACUUM ANALYZE pgjobs.jobs, pgjobs.rollups")
    conn.execute("SET jit = off")
    steps, answer, pages, queries = overview(), None, 0, 0
    while True:
        try:
            statement: Any = steps.send(answer)
        except StopIteration:
            break
        answer = jobs.database.run(statement, conn)
        with psycopg.ClientCursor(conn) as cursor:
            text = cursor.mogrify(statement.query.text("pgjobs"), statement.params)
        plan = explain(conn, text.replace("%", "%%"))
        pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        queries += 1
        assert not [
            node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "jobs"
        ], text
    assert queries <= 9
    assert pages < PAGES


# -- how it ends


def followed(url: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*PGJOBS, *arguments], env=environment(url, **more), stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_goes_on_until_it_is_interrupted_and_ends_well(as_json: bool, jobs: PgJobs, database_url: str) -> None:
    jobs.task(name="t", queue="mail")(lambda: None).enqueue()
    more = ["--json"] if as_json else []
    with followed(database_url, "info", "--watch", "0.1", *more) as process:
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            seen += json.loads(line)["queues"][0]["queued"] if as_json else line.startswith("mail ")
            if seen == 2:
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
        assert process.wait(10) == 0


def test_colours_are_as_the_environment_says(jobs: PgJobs, database_url: str) -> None:
    jobs.task(name="t", queue="mail")(lambda: None).enqueue()
    assert "\x1b" not in pgjobs(database_url, "info").stdout
    said = pgjobs(database_url, "info", NO_COLOR="", FORCE_COLOR="1", COLUMNS="60", TERM="xterm").stdout
    assert "\x1b[33m▇" in said
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in said.splitlines()) <= 60


def test_a_pipe_is_as_wide_as_whoever_reads_it_says(jobs: PgJobs, database_url: str) -> None:
    """``watch pgjobs info`` reads a pipe, and says in COLUMNS how wide its terminal is."""
    jobs.task(name="t", queue="mail")(lambda: None).enqueue()
    assert max(map(len, pgjobs(database_url, "info", COLUMNS="50").stdout.splitlines())) <= 50
    wide = pgjobs(database_url, "info", COLUMNS="").stdout.splitlines()
    assert any("failed 1h" in line for line in wide)


def test_one_look_loads_what_it_needs_and_no_more(jobs: PgJobs, database_url: str) -> None:
    """A start is most of what it takes: no pool, and nothing of what a PgJobs can do besides."""
    command = [sys.executable, "-X", "importtime", "-m", "pgjobs", "info"]
    done = subprocess.run(command, env=environment(database_url), capture_output=True, text=True, check=True, cwd=ROOT)
    for heavy in ("pgjobs.app", "pgjobs.events", "psycopg_pool", "sqlalchemy", "alembic"):
        assert not re.search(rf"\| +{re.escape(heavy)}\n", done.stderr), f"info imports {heavy}"


def test_collector_leaves_a_start_alone(jobs: PgJobs, database_url: str) -> None:
    code = """
import atexit, gc, sys
from pgjobs.cli import main
before = gc.get_stats()[0]["collections"]
atexit.register(lambda: print(gc.get_stats()[0]["collections"] - before))
sys.argv = ["pgjobs", "info", "--json"]
main()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(database_url), capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout.splitlines()[-1]) < 20


@pytest.mark.server
def test_watching_outlives_an_outage(jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any]) -> None:
    """Its connections are cut: it asks again."""
    jobs.task(name="t", queue="mail")(lambda: None).enqueue()
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    with followed(database_url, "info", "--watch", "0.2", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        eventually(lambda: conn.execute(cut).fetchone() != (0,))
        assert json.loads(process.stdout.readline())["queues"]
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(10) == 0
