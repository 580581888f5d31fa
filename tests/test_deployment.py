"""docs/deployment.md and the files that it names: they parse, agree with each other, and call what exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
import yaml

from pgjobs import PgJobs
from pgjobs.cli import COMMANDS, Commands
from pgjobs.supervisor.process import KILL_S, Settings
from tests.privileges import login, schema_with_roles
from tests.processes import ROOT, WorkerProcess
from tests.support import eventually

DEPLOY = ROOT / "examples" / "deploy"
UNIT = DEPLOY / "pgjobs-worker.service"
PAGE = ROOT / "docs" / "deployment.md"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


def unit() -> dict[str, str]:
    return dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if re.match(r"^\w+=", line))


def container() -> dict[str, Any]:
    spec: dict[str, Any] = documents("worker.yaml")[0]["spec"]["template"]["spec"]
    (only,) = spec["containers"]
    return only


def command_lines() -> dict[str, list[str]]:
    """Every command line of pgjobs in the files and the page, by where it stands."""
    (migrate,) = documents("migrate.yaml")[0]["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    found = {
        "unit": shlex.split(unit()["ExecStart"]),
        "migrate.yaml": migrate["command"],
        "worker.yaml": container()["command"],
        **{f"compose {name}": ["pgjobs", *compose[name]["command"]] for name in ("migrate", "worker")},
    }
    for path in (PAGE, UNIT, *(DEPLOY / "kubernetes").glob("*.yaml")):
        text = path.read_text()
        blocks = "".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        lines = re.findall(r"^(pgjobs [a-z].*)$", blocks, re.MULTILINE)
        for line in re.findall(r"`(pgjobs [a-z][^`\n]*)`", text) + lines:
            found[f"{path.name}: {line}"] = shlex.split(line)
    return found


@pytest.mark.parametrize("words", command_lines().values(), ids=command_lines().keys())
def test_command_is_one_that_there_is(words: list[str]) -> None:
    program, *arguments = words
    assert Path(program).name == "pgjobs"
    command: click.Command = Commands("pgjobs")
    context: click.Context | None = None
    while isinstance(command, click.Group) and arguments:
        context = click.Context(command, parent=context, info_name=command.name)
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, name
        command = found
    command.make_context(command.name, arguments, parent=context, resilient_parsing=False)


def test_there_are_commands_to_be_checked() -> None:
    assert len(command_lines()) >= 12
    assert {"worker", "workers", "migrate", "roles", "doctor"} <= {words[1] for words in command_lines().values()}
    assert {words[1] for words in command_lines().values()} <= COMMANDS.keys()


def test_files_that_the_page_names_exist_and_all_are_named() -> None:
    paths = re.findall(r"\]\((\.\./examples/deploy/[\w/.-]+)\)", PAGE.read_text())
    named = {(PAGE.parent / path).resolve() for path in paths}
    assert named == {path for path in DEPLOY.rglob("*") if path.is_file()}


# -- how long a worker may take to leave


def patience_s(arguments: list[str]) -> float:
    """What a worker needs to leave, and its supervisor to kill who does not."""
    said = re.search(r"--shutdown-timeout[= ](\d+)", " ".join(arguments))
    return (float(said[1]) if said else Settings("none").shutdown_timeout) + KILL_S


def test_every_stop_leaves_the_time_that_a_worker_may_take() -> None:
    pod = documents("worker.yaml")[0]["spec"]["template"]["spec"]
    assert float(unit()["TimeoutStopSec"]) > patience_s(shlex.split(unit()["ExecStart"]))
    assert pod["terminationGracePeriodSeconds"] > patience_s(container()["command"])
    worker = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]
    assert float(worker["stop_grace_period"].rstrip("s")) >= patience_s(worker["command"])


# -- systemd


def test_unit_speaks_with_the_supervisor_alone() -> None:
    said = unit()
    assert (said["Type"], said["NotifyAccess"], said["KillMode"]) == ("notify", "main", "mixed")
    assert said["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert float(said["WatchdogSec"]) > 10


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/srv/app/.venv/bin/pgjobs", sys.executable).replace("User=pgjobs", "User=root")
    (tmp_path / UNIT.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "Failed to" in done.stderr and UNIT.name not in done.stderr:
        pytest.skip(f"systemd-analyze does not run here: {done.stderr.strip().splitlines()[0]}")
    assert UNIT.name not in done.stderr
    assert done.returncode == 0, done.stderr


# -- Kubernetes


def test_probes_ask_the_port_that_the_worker_answers_on() -> None:
    worker = container()
    (port,) = worker["ports"]
    assert f"--http=0.0.0.0:{port['containerPort']}" in worker["command"]
    assert [worker[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")] == [
        "/live", "/live", "/ready",
    ]  # fmt: skip
    probes = [worker[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")]
    assert {probe["httpGet"]["port"] for probe in probes} == {port["name"]}


def test_objects_refer_to_each_other() -> None:
    deployment, budget = documents("worker.yaml")
    scaled, authentication = documents("worker-scaler.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == budget["spec"]["selector"]["matchLabels"] == labels
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]


@pytest.mark.server
def test_scalers_query_counts_what_waits_and_runs_as_a_reader(conn: psycopg.Connection[Any], direct_url: str) -> None:
    (trigger,) = documents("worker-scaler.yaml")[0]["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    with schema_with_roles(conn, direct_url) as schema:
        for queue in ("default", "default", "mail", "other"):
            conn.execute(f"SELECT {schema}.enqueue('t', queue => %s)", [queue])
        with login(conn, direct_url, schema, "reader") as url, psycopg.connect(url) as own:
            assert own.execute(query.replace("pgjobs.", f"{schema}.")).fetchone() == (3,)


# -- connections


@pytest.mark.server
@pytest.mark.slow
def test_connections_are_as_many_as_the_page_says(
    jobs: PgJobs, database_url: str, direct_url: str, conn: psycopg.Connection[Any]
) -> None:
    if database_url.rpartition("/")[0] != direct_url.rpartition("/")[0]:
        pytest.skip("a pooler sits between, which keeps connections of its own")
    page = PAGE.read_text()
    a_process, a_supervisor, inside = (
        int(re.search(rf"\| {who} \| (\d)", page)[1])  # type: ignore[index]
        for who in ("a worker process", "a supervisor", "a worker inside your process")
    )

    def connected() -> int:
        row = conn.execute(
            "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
        assert row is not None
        return row[0]

    with WorkerProcess(database_url, "--processes", "2", "--http", "0").ready(2) as worker:
        eventually(lambda: connected() == 2 * a_process + a_supervisor)
        url = worker.said("watch me at ")[0].split("watch me at ")[1].split("/live")[0]
        with urllib.request.urlopen(f"{url}/metrics", timeout=5):
            pass
        eventually(lambda: connected() == 2 * a_process + a_supervisor + 1)
    eventually(lambda: connected() == 0)
    with jobs.worker():
        eventually(lambda: connected() == inside)
