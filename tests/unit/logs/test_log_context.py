"""What lines are about never outlives its block, in whatever thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

from byok.logs import LogScope, bind, note_kms_request
from byok.logs.context import current
from byok.services.threads import spawn


def test_a_request_is_known_inside_its_scope_alone() -> None:
    with LogScope(task="t"):
        note_kms_request("r-1")
        assert current()["kms_request_id"] == "r-1"
        with LogScope(rotation_id="1"):
            assert current()["kms_request_id"] is None
            note_kms_request("r-2")
        assert current() == {"task": "t", "kms_request_id": "r-1"}
    assert current() == {}


def test_a_request_without_reply_takes_the_last_ones_place() -> None:
    with LogScope():
        note_kms_request("r-1")
        note_kms_request("")
        assert current()["kms_request_id"] is None


def test_outside_of_scopes_nothing_is_bound() -> None:
    bind(tenant="acme")
    note_kms_request("r-1")
    assert current() == {}


def test_a_scope_entered_again_remembers_its_own_request() -> None:
    one, other = LogScope(rotation_id="1"), LogScope(rotation_id="2")
    for scope, request in ((one, "r-1"), (other, "r-2")):
        with scope:
            note_kms_request(request)
    with one, one:  # also inside itself
        assert current() == {"rotation_id": "1", "kms_request_id": "r-1"}
    with other:
        assert current()["kms_request_id"] == "r-2"
    assert current() == {}


def test_what_is_kept_ends_with_the_scope_around() -> None:
    with LogScope(task="t"):
        with LogScope(rotation_id="1") as lines:
            note_kms_request("r-1")
        lines.keep()
        assert current() == {"task": "t", "rotation_id": "1", "kms_request_id": "r-1"}
    assert current() == {}


def test_an_error_ends_a_scope_too() -> None:
    try:
        with LogScope(task="t"):
            bind(tenant="acme")
            raise ValueError
    except ValueError:
        assert current() == {}


def test_threads_of_a_pool_see_nothing_of_each_other_nor_of_their_last_job() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def job(number: int) -> tuple[object, object]:
        before = dict(current())
        with LogScope(rotation_id=str(number)):
            note_kms_request(f"r-{number}")
            meeting.wait()  # both are inside
            return before, current()["kms_request_id"]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(job, range(8))) == [({}, f"r-{number}") for number in range(8)]


def test_a_background_thread_is_about_nothing() -> None:
    seen: list[object] = []
    done = threading.Event()

    def look() -> None:
        seen.append(dict(current()))
        done.set()

    with LogScope(task="t"):
        spawn("look", look)
        assert done.wait(5)
    assert seen == [{}]
