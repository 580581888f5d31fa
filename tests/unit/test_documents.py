"""Documents of any depth, as those read them who show them."""

from __future__ import annotations

import json

import pytest

from pgjobs.arguments.codec import Unreadable
from pgjobs.connections.documents import DEEPEST, loads


@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
@pytest.mark.parametrize(("depth", "readable"), [(1, True), (DEEPEST, True), (DEEPEST + 1, False), (50_000, False)])
def test_what_is_too_deep_is_unreadable(pair: tuple[str, str], depth: int, readable: bool) -> None:
    text = pair[0] * depth + ("" if pair == "[]" else "1") + pair[1] * depth
    for data in (text, text.encode()):
        assert isinstance(loads(data), Unreadable) is not readable


def test_wide_documents_are_read_whole() -> None:
    wide = {"rows": [{"tags": ["a", "b"], "text": "[[[{{{"} for _ in range(1_000)]}
    assert loads(json.dumps(wide)) == wide
