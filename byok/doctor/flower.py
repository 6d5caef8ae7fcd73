"""Whether Flower shows itself to whoever comes by."""

import http.client
import re
from collections.abc import Iterator
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

from byok.doctor.result import Result, failed, note, passed
from byok.wiring import Runtime

_PAGES = ("/", "/workers", "/tasks")
_API = "/api/workers"
_SECONDS = 3.0
_MOST_REDIRECTIONS = 5
_REFUSED = (401, 403)
_NO_SUCH_PAGE = 404  # of the API alone: `byok flower` goes without it
_SIGN_IN = re.compile(r"/(?:log|sign)[-_]?in(?:/|$)")


class _Stay(HTTPRedirectHandler):
    """Where a redirection leads is for us to judge."""

    def redirect_request(self, *_: object) -> None:
        return None


def check_flower(runtime: Runtime) -> Iterator[Result]:
    """Ask without a password, where a setting says whom."""
    url = runtime.settings.flower_url
    if url is None:
        return
    try:
        answers = {path: _ask(url.rstrip("/") + path) for path in (*_PAGES, _API)}
    except (URLError, OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        yield note("flower", f"{url} does not answer: {reason}", "BYOK_FLOWER_URL says where Flower is")
        return
    yield judge_answers(url, answers)


def judge_answers(url: str, answers: dict[str, int]) -> Result:
    """What the HTTP status of each path comes to; 401 stands for a sign-in page, too."""
    shown = [path for path, status in answers.items() if 200 <= status < 300]
    if shown:
        return failed(
            "flower",
            f"shows {', '.join(shown)} without a password",
            "FLOWER_BASIC_AUTH=USER:PASSWORD, and a private network",
        )
    odd = {path: status for path, status in answers.items() if status not in _REFUSED}
    if odd.get(_API) == _NO_SUCH_PAGE:
        del odd[_API]
    if odd:
        told = ", ".join(f"{status} at {path}" for path, status in odd.items())
        return note(
            "flower", f"{url} does not answer as Flower: {told}", "BYOK_FLOWER_URL says where Flower is"
        )
    return passed("flower", "asks for a password")


def _ask(url: str, redirections: int = _MOST_REDIRECTIONS) -> int:
    """The HTTP status behind redirections within the server, or to the same page elsewhere, as to https."""
    status, location = _get(url)
    if location is None or not redirections:
        return status
    here, there = urlsplit(url), urlsplit(urljoin(url, location))
    is_same_server = here.hostname == there.hostname
    if is_same_server and _SIGN_IN.search(there.path):
        return _REFUSED[0]
    is_same_page = here.path.rstrip("/") == there.path.rstrip("/")
    if there.scheme not in ("http", "https") or not (is_same_server or is_same_page):
        return status
    return _ask(there.geturl(), redirections - 1)


def _get(url: str) -> tuple[int, str | None]:
    """The status, and where a redirection leads."""
    try:
        with build_opener(_Stay).open(url, timeout=_SECONDS) as answer:  # the schemes are checked before
            return answer.status, None
    except HTTPError as refused:
        refused.close()
        return refused.code, refused.headers.get("Location") if 300 <= refused.code < 400 else None
