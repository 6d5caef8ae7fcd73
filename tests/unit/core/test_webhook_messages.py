"""Where messages may be posted to, and when they are tried again."""

from datetime import timedelta

import pytest

from byok.core.webhooks import MAX_ATTEMPTS, check_url, host_of, pause_after
from byok.errors import InvalidInput


def test_an_https_url_is_taken_as_it_is() -> None:
    url = "https://hooks.acme.example:8443/byok?x=1"
    assert check_url(url, allow_http=False) == url
    assert host_of(url) == "hooks.acme.example"


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.example/",
        "ftp://acme.example/",
        "https:///path",
        "acme.example",
        "https://user:password@acme.example/",
        "https://acme.example/#part",
        "https://acme.example:port/",
        "https://acme.example/ x",
        "https://acmé.example/",
        "https://acme.example/" + "x" * 2048,
        "https://[::1",
    ],
)
def test_other_urls_are_refused_without_being_told(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_url(url, allow_http=False)
    assert url not in caught.value.message


def test_http_is_for_development() -> None:
    assert check_url("http://127.0.0.1:1/", allow_http=True)


def test_pauses_grow_to_half_a_day() -> None:
    hours = [pause_after(attempts) / timedelta(hours=1) for attempts in range(1, MAX_ATTEMPTS)]
    assert hours == sorted(hours)
    assert (hours[0], hours[-1]) == (1 / 60, 12)
    assert 48 < sum(hours) < 96
    assert pause_after(10**6) == timedelta(hours=12)
