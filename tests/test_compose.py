"""docker-compose.yml, as far as it can be checked without Docker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def conditions(service: dict[str, Any]) -> dict[str, str]:
    return {name: on["condition"] for name, on in service["depends_on"].items()}


def test_services_are_the_server_its_migration_and_a_worker(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", "migrate", "worker"}
    assert services["migrate"]["command"] == ["migrate"]
    assert services["worker"]["command"] == ["worker"]


def test_migration_waits_for_a_healthy_server_and_worker_for_the_migration(services: dict[str, Any]) -> None:
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]
    assert conditions(services["migrate"]) == {"postgres": "service_healthy"}
    assert conditions(services["worker"]) == {
        "postgres": "service_healthy",
        "migrate": "service_completed_successfully",
    }


def test_migration_ends_once_it_has_succeeded(services: dict[str, Any]) -> None:
    assert services["migrate"]["restart"] == "on-failure"


def test_url_names_the_server_with_its_user_database_and_password(services: dict[str, Any]) -> None:
    server = services["postgres"]["environment"]
    expected = "postgresql://{POSTGRES_USER}:{POSTGRES_PASSWORD}@postgres/{POSTGRES_DB}".format_map(server)
    for name in ("migrate", "worker"):
        assert services[name]["environment"]["PGJOBS_URL"] == expected


def test_image_installs_this_checkout_and_runs_without_root(services: dict[str, Any]) -> None:
    steps = services["worker"]["build"]["dockerfile_inline"].splitlines()
    assert steps[0] == "FROM python:3.13-slim"
    assert any("pip install" in step and "[binary]" in step for step in steps)
    assert "USER pgjobs" in steps
    assert services["worker"]["image"] == services["migrate"]["image"]


def test_major_version_of_the_server_is_fixed_and_its_data_is_on_a_volume(services: dict[str, Any]) -> None:
    assert services["postgres"]["image"] == "postgres:18"
    # Since 18 the image keeps its data in a directory named by the version, below this one.
    assert services["postgres"]["volumes"] == ["data:/var/lib/postgresql"]
