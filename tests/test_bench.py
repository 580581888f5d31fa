"""``pgjobs bench``: every measure really measures, and what it prints can be read by people and programs."""

from __future__ import annotations

import json

import psycopg
import pytest

from pgjobs import bench
from pgjobs.bench import measures
from tests.processes import pgjobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_report_is_json_on_demand_and_leaves_nothing_behind(database_url: str) -> None:
    done = pgjobs("", "bench", "--url", database_url, "-n", "1000", "--only", "1 process", "--rounds", "2", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (figure,) = report["figures"]
    assert figure["name"] == "drain 1,000 coroutines, 1 process"
    assert len(figure["rounds"]) == 2
    medians = figure["medians"]
    assert medians["jobs/s"] > 500
    assert 100 < medians["WAL bytes/job"] < 3_000
    assert 0 < medians["commits/job"] < 0.2
    assert report["shape"]["settings"]["synchronous_commit"] in ("on", "off")
    with psycopg.connect(database_url) as conn:
        row = conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgjobs_bench'").fetchone()
        assert row == (0,)


def test_table_names_the_machine_and_the_settings(database_url: str) -> None:
    done = pgjobs("", "bench", "--url", database_url, "-n", "1000", "--only", "enqueue 1,000 in bulk")
    assert done.returncode == 0, done.stderr
    for words in ("cores", "fsync o", "synchronous_commit", "enqueue 1,000 in bulk", "jobs/s"):
        assert words in done.stdout
    assert pgjobs("", "bench", "--only", "nothing of the sort").returncode == 2


@pytest.mark.parametrize("measure", bench.standard(1_000), ids=lambda measure: measure.name.strip())
def test_measure_measures(measure: bench.Measure, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pick_up", "pick_up_from_commit", "round_trip", "scheduled"):
        whole = getattr(measures, name)
        monkeypatch.setattr(
            measures, name, lambda database, count, whole=whole, **more: whole(database, min(count, 30), **more)
        )
    (chosen,) = [each for each in bench.standard(1_000) if each.name == measure.name]
    (values,) = bench.run(database_url, [chosen], 1).medians().values()
    assert all(value > 0 or key == "supervisor MB" for key, value in values.items()), values
    if chosen.unit == "ms":
        assert values["p50"] <= values["p95"] <= values["p99"]
        assert values["p50"] < 1_000
