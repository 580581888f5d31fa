"""``pgjobs jobs export``: what it writes, and that it never has more than some rows in memory."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgjobs import PgJobs, statements
from pgjobs.arguments.cipher import generate
from pgjobs.arguments.privacy import MASK
from pgjobs.cli.jobs import command
from pgjobs.errors import ConfigurationError, JobNotFoundError, OptionError
from pgjobs.job import new_id
from pgjobs.statements import Selection
from tests.processes import pgjobs

APP = """
from typing import Annotated
from pgjobs import PgJobs, Private
jobs = PgJobs()
@jobs.task(name="work")
def work(i: int, password: Annotated[str, Private] = "x") -> None: ...
"""


@pytest.fixture
def export(database_url: str) -> Callable[..., Result]:
    """Runs the command in this process."""

    def run(*arguments: str) -> Result:
        done = CliRunner().invoke(command, ["export", "--url", database_url, *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


def work(jobs: PgJobs, count: int) -> list[Any]:
    return jobs.task(name="work")(lambda i: i).using(timeout="1m", meta={"user": "ann"}).enqueue_many(
        [(i,) for i in range(count)]
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_full_disk_is_a_sentence(form: str, jobs: PgJobs, database_url: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    jobs.enqueue("work")
    done = pgjobs(database_url, "jobs", "export", "--format", form, "-o", "/dev/full")
    assert (done.returncode, done.stderr) == (1, "pgjobs: what it writes finds no room: No space left on device\n")


def test_lines_are_what_the_list_shows(jobs: PgJobs, export: Callable[..., Result], database_url: str) -> None:
    work(jobs, 3)
    jobs.worker(burst=True).run()
    done = export()
    exported = [json.loads(line) for line in done.stdout.splitlines()]
    listed = CliRunner().invoke(command, ["list", "--json", "--url", database_url])
    assert exported == json.loads(listed.stdout)[::-1]
    assert [job["result"] for job in exported] == [0, 1, 2]
    assert done.stderr == "3 exported\n"


def test_csv_has_a_header_and_texts(jobs: PgJobs, export: Callable[..., Result]) -> None:
    ids = work(jobs, 2)
    jobs.task(name="say")(lambda text: text).enqueue('he said "no",\nand; left')
    rows = list(csv.DictReader(io.StringIO(export("--format", "csv").stdout)))
    assert [row["id"] for row in rows[:2]] == list(map(str, ids))
    assert (rows[0]["status"], rows[0]["timeout"], rows[0]["started_at"]) == ("queued", "60.0", "")
    assert json.loads(rows[0]["meta"]) == {"user": "ann"}
    assert json.loads(rows[2]["args"]) == {"text": 'he said "no",\nand; left'}


def test_parquet_has_types_and_a_row_group_for_each_chunk(
    jobs: PgJobs, export: Callable[..., Result], tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    work(jobs, 2_500)
    path = tmp_path / "jobs.parquet"
    assert export("-o", str(path)).stderr == "2,500 exported\n"
    file = parquet.ParquetFile(path)
    assert (file.metadata.num_rows, file.num_row_groups) == (2_500, 3)
    row = file.read().slice(7, 1).to_pylist()[0]
    assert (row["task"], row["priority"], row["timeout"], row["started_at"]) == ("work", 0, 60.0, None)
    assert json.loads(row["args"]) == {"i": 7}
    assert row["created_at"].utcoffset() is not None
    assert str(file.schema_arrow.field("created_at").type) == "timestamp[us, tz=UTC]"


def test_parquet_without_its_library_names_the_extra(
    jobs: PgJobs, export: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pgjobs-queue\[parquet\]"):
        export("-o", str(tmp_path / "jobs.parquet"))


@pytest.mark.parametrize("name", ["none.csv", "none.jsonl", "none.parquet"])
def test_file_is_there_though_no_job_is(name: str, jobs: PgJobs, export: Callable[..., Result], tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    export("-o", str(path))
    first = {"none.csv": b"id,task,queue", "none.jsonl": b"", "none.parquet": b"PAR1"}[name]
    assert path.read_bytes().startswith(first)


@pytest.mark.server
def test_jobs_are_chosen_as_other_commands_choose_them(
    jobs: PgJobs, export: Callable[..., Result], conn: psycopg.Connection[Any]
) -> None:
    ids = work(jobs, 5)
    jobs.cancel(ids[:2])

    def chosen(*arguments: str) -> list[str]:
        return [json.loads(line)["id"] for line in export(*arguments).stdout.splitlines()]

    names = list(map(str, ids))
    assert chosen("--status", "cancelled") == names[:2]
    assert chosen("--where", "args->>'i' LIKE '4%'") == names[4:]
    assert chosen("--task", "other") == []
    assert chosen(names[3], names[0]) == [names[0], names[3]]
    conn.execute("UPDATE pgjobs.jobs SET created_at = now() - interval '2 h' WHERE id = %s", [ids[2]])
    assert chosen("--older-than", "1h", "-Q", "default") == names[2:3]
    with pytest.raises(JobNotFoundError):
        export(names[0], str(new_id()))
    with pytest.raises(OptionError, match="semicolon"):
        export("--where", "true; DROP TABLE pgjobs.jobs")
    with pytest.raises(OptionError, match="read-only"):
        export("--where", "pgjobs.enqueue('x') IS NOT NULL")
    assert "ids or filters" in export(names[0], "--task", "work").stderr


def test_private_arguments_are_masked_and_encrypted_ones_stay_so(
    jobs: PgJobs, export: Callable[..., Result], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGJOBS_URL", database_url)
    monkeypatch.setenv("PGJOBS_KEYS", generate())
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "exporting.py").write_text(APP)
    jobs.task(name="sealed", encrypt=True)(lambda secret: None).enqueue("hush")
    jobs.enqueue("work", i=1, password="hunter2")
    said = [export("-A", "exporting", "--format", form).stdout for form in ("csv", "jsonl")]
    for text in said:
        assert "$encrypted" in text
        assert MASK in text
        assert not [word for word in ("hush", "hunter2") if word in text]


@pytest.mark.server
def test_rows_are_fetched_some_at_a_time_from_one_snapshot(jobs: PgJobs) -> None:
    ids = work(jobs, 25)
    with jobs.database.connection() as conn, conn.transaction():
        stream = jobs.database.stream(statements.export_jobs(Selection(["queued"])), conn, 10)
        first = next(stream)
        assert conn.execute("SELECT count(*) FROM pg_cursors WHERE name = 'pgjobs_stream'").fetchone() == (1,)
        jobs.delete(ids)
        assert [row.id for chunk in (first, *stream) for row in chunk] == ids
        assert len(first) == 10
