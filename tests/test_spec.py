"""The protocol as a model that a checker walks through, and variants of it that it must find wrong."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).parent / "spec" / "claims.pml"

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("gcc") is None,
    reason="spin and gcc are not installed; `apt-get install spin gcc` brings them",
)

BROKEN = {
    "NO_FENCE": ("known", "assertion violated (fence==mine)"),
    "NO_STATUS": ("known", "assertion violated (completions<=1)"),
    "REAP_IN_ONE": ("known", "assertion violated  !( !("),
    "DELETE_THE_DEAD": ("known", "assertion violated  !( !("),
    "NO_RECONCILE": ("ends", "acceptance cycle"),
}


def check(directory: Path, claim: str, *, variant: str = "") -> str:
    """What the checker says of a variant; claim is one of the model's properties."""
    defined = [f"-D{variant}"] if variant else []
    subprocess.run(["spin", *defined, "-a", str(MODEL)], cwd=directory, check=True, capture_output=True)
    subprocess.run(
        ["gcc", "-O2", "-w", "-DCOLLAPSE", "-o", "pan", "pan.c"], cwd=directory, check=True, capture_output=True
    )
    fair = ["-f"] if claim == "ends" else []
    checked = subprocess.run(
        ["./pan", "-a", *fair, "-N", claim, "-m1000000"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert "max search depth too small" not in checked.stdout
    return checked.stdout


@pytest.mark.parametrize("variant", BROKEN)
def test_broken_variant_is_found(variant: str, tmp_path: Path) -> None:
    claim, complaint = BROKEN[variant]
    assert complaint in check(tmp_path, claim, variant=variant)


def test_job_is_never_lost_nor_completed_twice(tmp_path: Path) -> None:
    """In any of 1.6 million states."""
    assert "errors: 0" in check(tmp_path, "known")


@pytest.mark.timeout(300)
def test_job_is_completed_in_the_end(tmp_path: Path) -> None:
    """If every process goes on."""
    assert "errors: 0" in check(tmp_path, "ends")
