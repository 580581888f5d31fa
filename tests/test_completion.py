"""pgjobs completion: commands, options and names, through click's machinery and a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pgjobs import PgJobs
from tests.processes import ROOT, environment, pgjobs


def completed(url: str, *words: str, **more: str) -> list[str]:
    """What the script of bash would be answered, the last word being the one that is typed."""
    done = subprocess.run(
        [sys.executable, "-m", "pgjobs"],
        env=environment(
            url,
            _PGJOBS_COMPLETE="bash_complete",
            COMP_WORDS=" ".join(("pgjobs", *words)),
            COMP_CWORD=str(len(words)),
            **more,
        ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    done = pgjobs("", "completion", shell)
    assert done.returncode == 0
    assert f"_PGJOBS_COMPLETE={shell}_complete" in done.stdout


def test_unknown_shell_is_refused() -> None:
    done = pgjobs("", "completion", "dos")
    assert (done.returncode, "'bash', 'zsh', 'fish'" in done.stderr) == (2, True)


def test_commands_and_options_are_completed() -> None:
    assert completed("", "que") == ["queues"]
    assert completed("", "queues", "pau") == ["pause"]
    assert "--watch" in completed("", "info", "--w")


@pytest.mark.server
def test_names_of_queues_and_tasks_are_completed(jobs: PgJobs, database_url: str) -> None:
    for name, queue in (("mail.send", "mail"), ("mail.sort", "main"), ("report", "reports")):
        jobs.task(name=name, queue=queue)(lambda: None).enqueue()
    jobs.worker(burst=True).run()
    jobs.pause("maintenance")
    jobs.task(name="later", queue="letters", delay="1h")(lambda: None).enqueue()
    jobs.pause(task="mail.\x1b[2J")
    assert completed(database_url, "queues", "pause", "let") == ["letters"], "what is scheduled is known too"
    assert completed(database_url, "queues", "pause", "ma") == ["mail", "main", "maintenance"]
    assert completed(database_url, "jobs", "list", "-Q", "rep") == ["reports"]
    assert completed(database_url, "tasks", "pause", "mail.") == ["mail.send", "mail.sort"]
    assert completed("", "jobs", "cancel", "--url", database_url, "--task", "re") == ["report"]


def test_no_database_and_no_tables_say_nothing() -> None:
    assert completed("", "queues", "pause", "") == []
    assert completed("postgresql://127.0.0.1:1/none", "queues", "pause", "") == []
    assert completed("embedded:", "queues", "pause", "") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    command = tmp_path / "pgjobs"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m pgjobs "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(pgjobs completion bash)"; COMP_WORDS=(pgjobs queues pa); COMP_CWORD=2;'
        ' $(complete -p pgjobs | sed "s/.*-F \\([^ ]*\\).*/\\1/") pgjobs; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=environment("", PATH=path), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.stdout.split(), done.stderr) == (["pause"], "")
