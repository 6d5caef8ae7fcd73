"""Pages show words."""

from types import SimpleNamespace

import pytest

from byok.flower.words import worded


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (
            {"kwargs": "{'tenant': 'acme', 'key': 'pii'}", "result": "'done: version 2'"},
            ("acme pii", "done: version 2"),
        ),
        ({"kwargs": "{'rotation_ids': ['1', '2']}", "result": "'2 done'"}, ("1 2", "2 done")),
        (
            {"kwargs": "{'tenant': 'acme'}", "exception": "kms-unavailable: no answer"},
            ("acme", "kms-unavailable"),
        ),
        ({"kwargs": "{}"}, ("", "")),
        ({"kwargs": "{'cut': 'o"}, ("{'cut': 'o", "")),
        ({"kwargs": "…"}, ("…", "")),
        ({}, ("", "")),
    ],
)
def test_a_task_is_worded(told: dict[str, str], shown: tuple[str, str]) -> None:
    task = worded(SimpleNamespace(**{"kwargs": None, "result": None, "exception": None} | told))
    assert (task.kwargs, task.result) == shown
