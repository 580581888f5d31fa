"""The command line: what it prints, in colour or JSON, and with which code it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner

from pgjobs import PgJobs, Private, Retry, Status, __version__
from pgjobs.arguments.cipher import generate
from pgjobs.cli import COMMANDS, cli
from pgjobs.config import SCHEMA_REVISION
from tests.processes import ROOT, environment, pgjobs
from tests.support import eventually

pytestmark = pytest.mark.slow


def ok(url: str, *arguments: str, **more: str) -> str:
    done = pgjobs(url, *arguments, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pgjobs", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    for command in COMMANDS:
        assert f"  {command} " in done.stdout
    modules = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pgjobs", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stderr
    for heavy in ("psycopg", "sqlalchemy", "alembic", "rich", "msgspec", "asyncio"):
        assert f"| {heavy}\n" not in modules, f"--help imports {heavy}"


def test_version() -> None:
    assert ok("", "--version").strip() == f"pgjobs {__version__}"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nothing"], 2, "There is: alerts, bench, check, completion, demo, dev, "),
        (["worker"], 2, "-A app.tasks"),
        (["jobs", "show", "x"], 2, "not a UUID"),
        (["enqueue", "mail.send", "a=1", "b"], 2, "put it before"),
        (["enqueue", "mail.send", "a:=x"], 2, "is no JSON"),
        (["enqueue", "mail.send", "--delay", "soon"], 2, "'10m'"),
        (["enqueue", "mail.send", "--run-at", "noon"], 2, "2027-01-31"),
        (["jobs", "show", "01a209d1-b457-7388-b6d6-2b5e2dd5059a"], 1, "does not exist"),
        (["info", "--schema", "nowhere"], 5, "pgjobs migrate --schema nowhere"),
        (["info", "--schema", "No Where"], 2, "is not a name"),
        (["info", "--url", "postgresql://127.0.0.1:1/none"], 3, "refused"),
        (["info", "-A", "tests.apps.missing"], 2, "not found"),
        (["worker", "-A", "./tests/apps/basic.py"], 2, "write -A tests.apps.basic"),
        (["worker", "-A", "tests.apps.basic", "-Q", "mail:-1"], 2, "as in mail:3"),
        (["worker", "-A", "tests.apps.basic", "--url", "mysql://127.0.0.1/none"], 2, "needs PostgreSQL"),
        (["migrate", "--to", "9999"], 5, "no revision '9999'"),
    ],
)
def test_error_is_a_line_with_the_remedy_and_a_code(
    arguments: list[str], code: int, says: str, database_url: str
) -> None:
    done = pgjobs(database_url, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_no_database_is_an_error_that_names_the_ways_out() -> None:
    done = pgjobs("", "info")
    assert done.returncode == 2
    assert "set PGJOBS_URL" in done.stderr


@pytest.mark.server
@pytest.mark.parametrize(
    "words",
    [
        ("jobs", "list"),
        ("jobs", "list", "--where", "true"),
        ("jobs", "export"),
        ("jobs", "cancel", "-Q", "mail", "-y"),
        ("purge", "--all", "-y"),
        ("roles", "create"),
        ("roles", "check"),
    ],
    ids=" ".join,
)
def test_schema_that_is_not_there_is_said_and_not_blamed_on_the_selection(
    words: tuple[str, ...], database_url: str, conn: psycopg.Connection[Any]
) -> None:
    group = "nowhere_reader"
    conn.execute(f"CREATE ROLE {group}".encode())
    try:
        done = pgjobs(database_url, *words, "--schema", "nowhere")
    finally:
        conn.execute(f"DROP ROLE {group}".encode())
    assert (done.returncode, done.stdout) == (5, "")
    assert "run `pgjobs migrate --schema nowhere`" in done.stderr
    assert done.stderr.count("\n") == 1


def test_migrate_checks_applies_and_writes_a_script(database_url: str) -> None:
    done = pgjobs(database_url, "migrate", "--check", "--schema", "fresh")
    assert (done.returncode, "lacks 0001" in done.stderr) == (5, True)
    script = ok(database_url, "migrate", "--sql", "--schema", "fresh")
    assert "CREATE TABLE fresh.jobs" in script
    assert "applied 0001" in ok(database_url, "migrate", "--schema", "fresh")
    assert "is up to date" in ok(database_url, "migrate", "--schema", "fresh")
    assert f"is up to date ({SCHEMA_REVISION})" in ok(database_url, "migrate", "--check", PGJOBS_SCHEMA="fresh")


@pytest.mark.server
def test_enqueue_takes_rqs_syntax(database_url: str, jobs: PgJobs) -> None:
    out = ok(database_url, "enqueue", "mail.send", "ann", ":[1]", "http://x/?q=1", "copies:=2", "note=a=b", "-Q", "m")
    job = jobs.job(out.strip())
    assert (job.task, job.queue) == ("mail.send", "m")
    assert job.args == {"*": ["ann", [1], "http://x/?q=1"], "copies": 2, "note": "a=b"}


@pytest.mark.server
def test_enqueue_with_an_application_checks_the_arguments(database_url: str, jobs: PgJobs) -> None:
    done = pgjobs(database_url, "enqueue", "-A", "tests.apps.basic", "tests.apps.basic.add", "1", "2")
    assert (done.returncode, "$.a" in done.stderr) == (2, True)
    made = json.loads(
        ok(database_url, "enqueue", "-A", "tests.apps.basic", "tests.apps.basic.add", ":1", "b:=2", "--delay", "1h",
           "--priority", "5", "--max-attempts", "2", "--ttl", "2h", "--timeout", "30s", "--json")
    )  # fmt: skip
    job = jobs.job(made["id"])
    assert (job.args, job.status, job.row.priority, job.row.max_attempts) == ({"a": 1, "b": 2}, Status.SCHEDULED, 5, 2)


@pytest.fixture
def lived_in(jobs: PgJobs) -> PgJobs:
    """A queue in which things have happened."""
    add = jobs.task(name="add")(lambda a, b: a + b)

    @jobs.task(name="boom", retry=Retry(2, backoff=0))
    def boom() -> None:
        raise ValueError("[red]no[/red] way")

    add.enqueue_many([(i, i) for i in range(3)])
    boom.enqueue()
    jobs.worker(max_jobs=5).run()
    add.using(queue="mail").enqueue(1, 2)
    add.using(queue="mail", delay="1h").enqueue(1, 2)
    return jobs


@pytest.mark.server
def test_info_shows_queues_and_workers(lived_in: PgJobs, database_url: str) -> None:
    with lived_in.worker(queues="other", name="mine", concurrency=7):
        text = ok(database_url, "info")
        seen = json.loads(ok(database_url, "info", "--json"))
    queues = {queue["queue"]: queue for queue in seen["queues"]}
    assert (queues["default"]["succeeded"], queues["default"]["failed"], queues["default"]["retried"]) == (3, 1, 1)
    assert (queues["mail"]["queued"], queues["mail"]["scheduled"]) == (1, 1)
    assert queues["default"]["oldest_s"] is None, "nothing waits there"
    assert queues["mail"]["oldest_s"] > 0
    assert [(w["name"], w["queues"], w["slots"], w["state"]) for w in seen["workers"]] == [
        ("mine", ["other"], 7, "idle")
    ]
    assert seen["last_hour"] == {"failed": 1, "retried": 1, "succeeded": 3}
    for words in ("▓", "default", "mail", "mine", "0/7", "1 worker, 0 busy, 1 idle", "3 succeeded"):
        assert words in text


@pytest.mark.server
def test_jobs_are_listed_shown_and_retried(lived_in: PgJobs, database_url: str) -> None:
    failed = json.loads(ok(database_url, "jobs", "list", "--status", "failed", "--json"))
    assert [(job["task"], job["attempt"], job["reason"]) for job in failed] == [("boom", 2, "error")]
    job_id = failed[0]["id"]
    listed = ok(database_url, "jobs", "list")
    assert job_id in listed
    assert len(listed.splitlines()) == 7
    assert len(ok(database_url, "jobs", "list", "-Q", "mail", "-n", "1").splitlines()) == 2
    assert ok(database_url, "jobs", "list", "--task", "none").strip() == "no such jobs"
    where = ["--where", "status = 'failed' AND task LIKE 'b%'", "--older-than", "0s"]
    assert [job["id"] for job in json.loads(ok(database_url, "jobs", "list", *where, "--json"))] == [job_id]
    alike = json.loads(ok(database_url, "failures", "--json"))[0]["fingerprint"]
    assert [job["id"] for job in json.loads(ok(database_url, "jobs", "list", "--fingerprint", alike, "--json"))] == [
        job_id
    ]
    several = json.loads(ok(database_url, "jobs", "list", "--status", "failed", "--status", "succeeded", "--json"))
    assert {job["status"] for job in several} == {"failed", "succeeded"}
    refused = pgjobs(database_url, "jobs", "list", "--where", "pgjobs.uuidv7() IS NULL; DELETE FROM pgjobs.jobs")
    assert (refused.returncode, "one SQL expression" in refused.stderr) == (2, True)
    nothing = pgjobs(database_url, "failures", "show", "none", "--json")
    assert (nothing.returncode, json.loads(nothing.stdout)) == (1, {"failures": [], "jobs": []})
    here = ok(database_url, "failures", TZ="Etc/GMT-9")
    assert ok(database_url, "failures", TZ="UTC") != here, "times are those of this host"
    shown = ok(database_url, "jobs", "show", job_id)
    for words in (job_id, "failed", "attempt   2 of 2", "ValueError: [red]no[/red] way", "attempt 1 failed"):
        assert words in shown
    document: dict[str, Any] = json.loads(ok(database_url, "jobs", "show", job_id, "--json"))
    assert [failure["attempt"] for failure in document["failures"]] == [1, 2]
    assert ok(database_url, "jobs", "retry", job_id).strip() == "1 queued again"
    done = pgjobs(database_url, "jobs", "retry", job_id)
    assert (done.returncode, "is queued and cannot be queued again" in done.stderr) == (1, True)


def counts(conn: psycopg.Connection[Any]) -> dict[str, int]:
    return dict(conn.execute("SELECT status, count(*)::int FROM pgjobs.jobs GROUP BY 1").fetchall())


@pytest.mark.server
def test_jobs_are_cancelled_retried_and_deleted_by_what_they_have_in_common(
    jobs: PgJobs, database_url: str, conn: psycopg.Connection[Any]
) -> None:
    task = jobs.task(name="work")(lambda i: i)
    task.enqueue_many([(i,) for i in range(2_500)])
    task.using(queue="mail", delay=60).enqueue_many([(1,), (2,)])
    done = pgjobs(database_url, "jobs", "cancel", "--task", "work", "--status", "queued")
    assert (done.returncode, "2,500 jobs (2,500 queued); pass --yes to cancel them" in done.stderr) == (2, True)
    assert counts(conn) == {"queued": 2500, "scheduled": 2}, "it counts before it acts"
    said = ok(database_url, "jobs", "cancel", "--task", "work", "--yes", "-Q", "default", "--reason", "by hand")
    assert said.splitlines() == ["2,500 jobs (2,500 queued)", "2,500 cancelled"]
    assert counts(conn) == {"cancelled": 2500, "scheduled": 2}
    assert conn.execute("SELECT DISTINCT reason FROM pgjobs.jobs WHERE status = 'cancelled'").fetchall() == [
        ("by hand",)
    ]
    assert ok(database_url, "jobs", "retry", "--task", "work", "--yes").strip() == "no such jobs", "failed ones only"
    ok(database_url, "jobs", "retry", "--task", "work", "--status", "cancelled", "--yes")
    assert counts(conn) == {"queued": 2500, "scheduled": 2}
    assert ok(database_url, "jobs", "delete", "--older-than", "1h", "--yes").strip() == "no such jobs"
    ok(database_url, "jobs", "delete", "--status", "queued", "--yes")
    assert counts(conn) == {"scheduled": 2}
    assert ok(database_url, "purge", "-Q", "mail", "--yes").splitlines() == ["2 jobs (2 scheduled)", "2 deleted"]
    assert counts(conn) == {}


RUN_NOW = "SELECT pgjobs.run_now(array_agg(id)) FROM pgjobs.jobs"
RETRY = "SELECT pgjobs.retry(array_agg(id)) FROM pgjobs.jobs"
SUCCEED = "UPDATE pgjobs.jobs SET status = 'succeeded', position = NULL, due_at = NULL, finished_at = now()"


@pytest.mark.server
@pytest.mark.parametrize(
    ("command", "chosen", "meanwhile", "status"),
    [
        ("purge -Q default", "queued", SUCCEED, "succeeded"),
        ("jobs delete --status failed", "failed", RETRY, "queued"),
        ("jobs retry --task work", "failed", SUCCEED, "succeeded"),
        ("jobs cancel --status scheduled", "scheduled", RUN_NOW, "queued"),
        ("jobs hold --status scheduled", "scheduled", RUN_NOW, "queued"),
        ("jobs move --status scheduled --to other", "scheduled", RUN_NOW, "queued"),
        ("jobs prioritize --status scheduled --to 9", "scheduled", RUN_NOW, "queued"),
    ],
)
def test_what_has_another_status_by_then_is_left_alone(
    command: str,
    chosen: str,
    meanwhile: str,
    status: str,
    jobs: PgJobs,
    database_url: str,
    conn: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pgjobs.cli import selection

    job = jobs.task(name="work")(lambda: 1).using(delay=60 if chosen == "scheduled" else None).enqueue()
    if chosen == "failed":
        conn.execute("UPDATE pgjobs.jobs SET status = 'failed', position = NULL, finished_at = now()")
    chunks = selection.chunks

    def chunks_of_a_busy_table(*args: Any) -> Iterator[list[UUID]]:
        for ids in chunks(*args):
            conn.execute(meanwhile)  # type: ignore[call-overload]
            yield ids

    monkeypatch.setattr(selection, "chunks", chunks_of_a_busy_table)
    done = CliRunner().invoke(cli, [*command.split(), "--yes", "--url", database_url])
    assert done.output.splitlines()[0] == f"1 job (1 {chosen})"
    assert done.output.splitlines()[1].split()[0] == "0"
    assert (job.refresh().status, job.queue, job.row.priority) == (status, "default", 0)
    assert conn.execute("SELECT jobs FROM pgjobs.audit").fetchall() == [(0,)]


def test_whoever_does_not_say_which_jobs_is_told_how(database_url: str) -> None:
    for arguments, words in (
        (["jobs", "delete"], "say which jobs: their ids, or --status"),
        (["jobs", "cancel", "--status", "lost"], "'lost' is not one of"),
        (["jobs", "cancel", "x"], "job id 'x' is not a UUID"),
        (["purge"], "say -Q QUEUE, or --all"),
        (["worker", "-A", "x", "--max-rss", "much"], "'much' is no size; write 500M or 2G"),
        (["dev"], "say which application"),
    ):
        done = pgjobs(database_url, *arguments)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("worker -A x --max-rss 500", "'500' is less than a process takes before it runs a job; write 500M or 2G"),
        ("worker -A x --stall-timeout 0", "0.0 is not in the range x>=2.0"),
        ("worker -A x --stall-timeout nan", "nan is no number of seconds"),
        ("worker -A x --max 2 --scale-wait inf", "inf is no number of seconds"),
        ("workers stacks --all --timeout nan", "nan is no number of seconds"),
        ("workers profile --all --seconds nan", "nan is no number of seconds"),
        ("info --watch nan", "nan is no number of seconds"),
        ("top --refresh nan", "nan is no number of seconds"),
    ],
)
def test_number_that_cannot_be_meant_is_refused_where_it_is_said(words: str, says: str) -> None:
    done = CliRunner().invoke(cli, words.split())
    assert (done.exit_code, says in done.output) == (2, True), done.output


@pytest.mark.server
def test_workers_are_listed(jobs: PgJobs, database_url: str) -> None:
    assert "no worker; start one" in ok(database_url, "workers")
    with jobs.worker(name="mine", queues="mail", concurrency=7):
        assert "mine" in ok(database_url, "workers")
        (worker,) = json.loads(ok(database_url, "workers", "--json"))
    assert (worker["name"], worker["slots"], worker["state"]) == ("mine", 7, "idle")


@pytest.mark.server
def test_info_names_what_no_worker_can_run(jobs: PgJobs, database_url: str) -> None:
    for _ in range(2):
        jobs.enqueue("gone.send", 1)
    jobs.task(name="work")(lambda i: i).enqueue(1)
    jobs.tasks["work"] = jobs.task_of(lambda: 1, "work")
    with jobs.worker():
        eventually(lambda: not [job for job in listed(database_url) if job["status"] in ("queued", "running")])
        text = ok(database_url, "info")
    assert "2 jobs of gone.send cannot run here: unknown task" in text
    assert "1 job of work cannot run here: arguments do not fit" in text


@pytest.mark.server
def test_info_names_ten_of_those_that_no_worker_can_run(jobs: PgJobs, database_url: str, conn: Any) -> None:
    conn.execute(
        "INSERT INTO pgjobs.jobs (task, args, status, position, due_at, reason)"
        " SELECT 'gone.' || i || repeat('x', 4000), '{}', 'scheduled', NULL, now(), 'unknown task'"
        "   FROM generate_series(1, 13) AS i"
    )
    text = ok(database_url, "info")
    assert text.count("cannot run here") == 10
    assert "and so 3 more: pgjobs doctor" in text
    assert "x" * 100 not in text


def test_info_as_json_names_what_no_worker_can_run(jobs: PgJobs, database_url: str) -> None:
    jobs.enqueue("gone.send", 1)
    with jobs.worker():
        eventually(lambda: json.loads(ok(database_url, "info", "--json"))["unrunnable"], timeout_s=30)
        (row,) = json.loads(ok(database_url, "info", "--json"))["unrunnable"]
    assert (row["task"], row["jobs"]) == ("gone.send", 1)


def listed(database_url: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(ok(database_url, "jobs", "list", "--json"))
    return rows


@pytest.mark.server
def test_demo_runs_on_a_given_database_and_loses_no_job(database_url: str, conn: psycopg.Connection[Any]) -> None:
    """The main job on real input: a few hundred pages, two workers, one of them killed."""
    done = subprocess.run(
        [sys.executable, "-m", "pgjobs", "demo", "--url", database_url],
        env=environment(""),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "no job was lost" in done.stdout
    assert "kill -9" in done.stdout
    counts = dict(conn.execute("SELECT status, count(*)::int FROM pgjobs_demo.jobs GROUP BY 1").fetchall())
    assert sum(counts.values()) >= 300
    assert counts["succeeded"] > 300
    assert counts["failed"] >= 3, "dead links"
    assert set(counts) == {"succeeded", "failed"}
    reasons = dict(conn.execute("SELECT reason, count(*)::int FROM pgjobs_demo.failures GROUP BY 1").fetchall())
    assert reasons["worker lost"] > 0, "the killed worker held jobs"
    assert conn.execute("SELECT max(attempt) FROM pgjobs_demo.jobs WHERE status = 'succeeded'").fetchone() == (2,)
    words = conn.execute(
        "SELECT result::int FROM pgjobs_demo.jobs WHERE args->>'url' LIKE '%%/click.core.html'"
    ).fetchone()
    assert words is not None
    assert words[0] > 1_000, "the pages are real"


# -- what is private


def test_private_arguments_are_shown_by_no_command(jobs: PgJobs, database_url: str) -> None:
    def login(user: str, password: str) -> None: ...

    marked = jobs.task(name="login", private=["password"])(login).enqueue("ann", "canary-1")
    by_name = PgJobs(database_url)
    unmarked = by_name.enqueue("tests.apps.canaries.login", "ann", "canary-2")
    by_name.close()
    for app in ((), ("-A", "tests.apps.canaries")):
        for job, arguments in ((marked, '"user": "ann"'), (unmarked, "[private]")):
            if job is unmarked and not app:
                continue  # nobody here knows what the task calls private
            for command in (("list",), ("list", "--json"), ("show", str(job.id)), ("show", str(job.id), "--json")):
                said = ok(database_url, "jobs", *command, *app)
                assert arguments in said
                assert "canary-1" not in said
                assert "canary-2" not in said or not app
    assert marked.args == {"user": "ann", "password": "canary-1"}


def test_private_arguments_do_not_show_in_the_editor(jobs: PgJobs, database_url: str, tmp_path: Path) -> None:
    def login(user: str, password: str) -> None:
        raise ValueError(user)

    job = jobs.task(name="login", private=["password"], retry=1)(login).enqueue("ann", "canary-1")
    jobs.worker(burst=True).run()
    editor, seen = tmp_path / "editor", tmp_path / "seen"
    editor.write_text(f'#!/bin/sh\ncp "$1" {seen}\nsed -i s/ann/bob/ "$1"\n')
    editor.chmod(0o755)
    done = pgjobs(database_url, "jobs", "retry", str(job.id), "--edit", VISUAL=str(editor), EDITOR=str(editor))
    assert done.returncode == 0, done.stderr
    assert json.loads(seen.read_text()) == {"user": "ann", "password": "[private]"}
    assert job.refresh().args == {"user": "bob", "password": "canary-1"}


def test_encrypted_job_is_shown_without_its_tokens(jobs: PgJobs, database_url: str) -> None:
    sealed = PgJobs(database_url, keys=[generate()])
    job = sealed.task(name="double", encrypt=True)(lambda i: i).enqueue(21)
    sealed.close()
    said = ok(database_url, "jobs", "show", str(job.id))
    assert re.search(r"args +\[encrypted\]", said)
    assert "gAAAA" not in said + ok(database_url, "jobs", "list")
    assert list(json.loads(ok(database_url, "jobs", "show", str(job.id), "--json"))["job"]["args"]) == ["$encrypted"]


def test_names_from_rows_are_text_and_no_markup(jobs: PgJobs, database_url: str) -> None:
    job = jobs.enqueue("[red]mail[/red]", text="[/bold] [link=x]")
    for command in (("list",), ("show", str(job.id))):
        said = ok(database_url, "jobs", *command)
        assert "[red]mail[/red]" in said
        assert "[/bold] [link=x]" in said


@pytest.mark.parametrize("words", [("alerts", "--url", "x", "test", "a"), ("failures", "--url", "x", "show", "a")])
def test_database_is_named_behind_the_subcommand_and_not_passed_over_before_it(words: tuple[str, ...]) -> None:
    done = pgjobs("", *words)
    assert (done.returncode, f"write --url behind {words[3]}" in done.stderr) == (2, True)


# -- tasks that are known by what their workers have published


@pytest.fixture
def published(jobs: PgJobs) -> PgJobs:
    def order(customer: str, quantities: dict[int, float], code: Annotated[str, Private] = "") -> None: ...

    def each(first: int, *more: int) -> None: ...

    jobs.task(name="shop.order")(order)
    jobs.task(name="shop.each", private=["first"])(each)
    jobs.task(name="shop.secret", encrypt=True)(lambda i: i)
    jobs.worker(burst=True).run()
    return jobs


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["shop.order", "ann"], "task 'shop.order': argument quantities is missing"),
        (["shop.order", "ann", "5"], "argument quantities is of type string"),
        (["shop.order", ":5", ":{}"], "argument customer is of type number"),
        (["shop.order", "ann", ":{}", "canary", "x"], "it takes 3 arguments by place"),
        (["shop.order", "ann", ":{}", "customer=bob"], "argument customer is given by place and by name"),
        (["shop.order", "customer=ann", "quantities:={}", "canary=1"], "there is no argument canary"),
        (["shop.each", "canary"], "argument first is of type string; a number is written name:=5, or :5 by place"),
        (["shop.secret", "i:=1"], "task 'shop.secret' is encrypted; give -A, so that its arguments are encrypted"),
    ],
)
def test_enqueue_of_a_published_task_is_checked_without_its_application(
    arguments: list[str], says: str, published: PgJobs, conn: psycopg.Connection[Any], database_url: str
) -> None:
    done = pgjobs(database_url, "enqueue", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert conn.execute("SELECT count(*) FROM pgjobs.jobs").fetchone() == (0,)


def test_enqueue_of_a_published_task_makes_the_row_that_its_application_would(
    published: PgJobs, database_url: str
) -> None:
    order = ok(database_url, "enqueue", "shop.order", "ann", ':{"17": 2.0}', "code=canary")
    each = ok(database_url, "enqueue", "shop.each", ":1", ":2", ":3", "-o", "lifo=true")
    for said, task, call in (
        (order, "shop.order", ("ann", {17: 2.0}, "canary")),
        (each, "shop.each", (1, 2, 3)),
    ):
        job, same = published.job(said.strip()), published.tasks[task].enqueue(*call).refresh()
        assert job.args == same.args
        assert {**(job.row.options or {}), "lifo": True} == {**(same.row.options or {}), "lifo": True}
    assert "canary" not in ok(database_url, "jobs", "list") + ok(database_url, "jobs", "show", order.strip())


def test_enqueue_of_a_task_of_an_older_release_is_as_it_was(
    published: PgJobs, conn: psycopg.Connection[Any], database_url: str
) -> None:
    conn.execute("UPDATE pgjobs.tasks SET schema = schema - 'x-pgjobs'")
    assert published.job(ok(database_url, "enqueue", "shop.order", "ann", "5").strip()).args == {"*": ["ann", "5"]}
    assert pgjobs(database_url, "enqueue", "shop.order", "customer:=5", "quantities:={}").returncode == 2


def test_enqueue_with_an_application_takes_texts_where_json_has_no_numbers(database_url: str, jobs: PgJobs) -> None:
    said = ok(database_url, "enqueue", "-A", "tests.apps.canaries", "tests.apps.canaries.weigh", 'grams:={"17": 2.0}')
    assert jobs.job(said.strip()).args == {"grams": {"17": 2.0}}
