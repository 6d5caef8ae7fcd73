"""The chain notices every kind of tampering, and says where."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from byok.core.audit import GENESIS_HASH, canonical_event, exported_event, link_event, verify_chain
from byok.core.model import AuditEvent
from byok.errors import AuditChainBroken

START = datetime(2026, 1, 1, tzinfo=UTC)


def chain(length: int = 4) -> list[AuditEvent]:
    events: list[AuditEvent] = []
    for sequence in range(1, length + 1):
        events.append(
            link_event(
                tenant_id=UUID(int=1),
                sequence=sequence,
                previous_hash=events[-1].hash if events else GENESIS_HASH,
                at=START + timedelta(microseconds=sequence),
                actor="test",
                action="key.created",
                details={"key": "pii", "version": sequence, "previous": None},
            )
        )
    return events


def test_a_whole_chain_counts() -> None:
    assert verify_chain([]) == 0
    assert verify_chain(chain()) == 4


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("field", ["actor", "action", "at", "details", "previous_hash", "hash", "tenant_id"])
def test_an_edit_is_located(place: int, field: str) -> None:
    events = chain()
    other: object = {
        "at": START,
        "details": {"key": "cards"},
        "previous_hash": b"x" * 32,
        "hash": b"x" * 32,
        "tenant_id": UUID(int=2),
    }.get(field, "x")
    events[place] = replace(events[place], **{field: other})  # type: ignore[arg-type]
    with pytest.raises(AuditChainBroken, match=f"event {place + 1} "):
        verify_chain(events)


@pytest.mark.parametrize("place", range(3))
def test_a_removed_event_is_missed(place: int) -> None:
    events = chain()
    del events[place]
    with pytest.raises(AuditChainBroken, match=f"event {place + 1} is missing"):
        verify_chain(events)


def test_a_swap_is_noticed() -> None:
    events = chain()
    events[1], events[2] = events[2], events[1]
    with pytest.raises(AuditChainBroken):
        verify_chain(events)


def test_the_canonical_form_is_sorted_json_without_spaces() -> None:
    event = chain(1)[0]
    text = canonical_event(event).decode()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert '"at":"2026-01-01T00:00:00.000001+00:00"' in text


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NAMES = st.text(st.characters(max_codepoint=127))
_NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1)


@given(
    actor=_TEXT,
    action=_TEXT,
    at=st.datetimes(timezones=st.timezones()),
    sequence=_NUMBERS,
    details=st.dictionaries(_NAMES, _TEXT | _NUMBERS | st.none()),
)
def test_the_canonical_form_is_that_of_rfc_8785(
    actor: str, action: str, at: datetime, sequence: int, details: dict[str, str | int | None]
) -> None:
    event = replace(chain(1)[0], actor=actor, action=action, at=at, sequence=sequence, details=details)
    members = json.loads(canonical_event(event))
    assert canonical_event(event) == rfc8785.dumps(members)
    assert (members["actor"], members["details"]) == (actor, details)
    assert exported_event(event) == rfc8785.dumps(members | {"hash": event.hash.hex()})


@pytest.mark.parametrize(
    "details",
    [{"n": 9.0}, {"n": True}, {"n": 2**53}, {"n": -(2**53)}, {"n": []}, {"é": 1}, {"n": "\ud800"}, [], None],
)
def test_what_is_no_event_of_ours_was_changed(details: object) -> None:
    events = chain()
    events[2] = replace(events[2], details=details)  # type: ignore[arg-type]
    with pytest.raises(ValueError):  # whoever encodes words it
        canonical_event(events[2])
    with pytest.raises(AuditChainBroken, match="event 3 was changed"):
        verify_chain(events)
