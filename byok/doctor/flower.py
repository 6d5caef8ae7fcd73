"""Whether Flower shows itself to whoever comes by."""

import http.client
from collections.abc import Iterator
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, build_opener

from byok.doctor.result import Result, failed, note, passed
from byok.wiring import Runtime

_PATHS = ("/", "/workers", "/tasks", "/api/workers")
_SECONDS = 3.0


class _Stay(HTTPRedirectHandler):
    """A redirection leads to a sign-in: that is an answer."""

    def redirect_request(self, *_: object) -> None:
        return None


def check_flower(runtime: Runtime) -> Iterator[Result]:
    """Ask without a password, where a setting says whom."""
    url = runtime.settings.flower_url
    if url is None:
        return
    try:
        shown = [path for path in _PATHS if _is_shown(url.rstrip("/") + path)]
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        yield note("flower", f"{url} does not answer: {reason}", "BYOK_FLOWER_URL says where Flower is")
        return
    if shown:
        yield failed(
            "flower",
            f"shows {', '.join(shown)} without a password",
            "FLOWER_BASIC_AUTH=USER:PASSWORD, and a private network",
        )
    else:
        yield passed("flower", "asks for a password")


def _is_shown(url: str) -> bool:
    try:
        with build_opener(_Stay).open(url, timeout=_SECONDS):  # the scheme is checked by the settings
            return True
    except HTTPError as refused:
        refused.close()
        return False
