"""Addresses of Redis: what they say, and that a wrong one is told in words that hold none of it."""

from pathlib import Path

import pytest

from byok.redis_url import RedisUrl


def test_one_server() -> None:
    url = RedisUrl.parse("redis://app:p%40ss%2Fword@cache.internal:6380/3")
    assert (url.servers, url.database, url.master_name) == ((("cache.internal", 6380),), 3, None)
    assert url.login() == {"username": "app", "password": "p@ss/word"}
    assert url.tls is None
    assert url.tls_arguments() == {}
    assert "p@ss" not in repr(url)


def test_what_is_left_out() -> None:
    url = RedisUrl.parse("redis://[::1]")
    assert (url.servers, url.database) == ((("::1", 6379),), 0)
    assert url.login() == {"username": None, "password": None}


def test_sentinels() -> None:
    url = RedisUrl.parse(
        "redis+sentinel://:secret@one,two:26380,[::1]:26381/my%20master/2?sentinel_username=s&sentinel_password=p%26q"
    )
    assert url.servers == (("one", 26379), ("two", 26380), ("::1", 26381))
    assert (url.master_name, url.database) == ("my master", 2)
    assert url.login() == {"username": None, "password": "secret"}
    assert url.sentinel_login() == {"username": "s", "password": "p&q"}
    assert RedisUrl.parse("redis+sentinel://one/master").database == 0


def test_tls_always_checks_the_certificate(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).touch()
    assert RedisUrl.parse("rediss://h").tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    full = RedisUrl.parse(
        f"rediss+sentinel://h/m?ssl_ca_certs={tmp_path}/ca&ssl_certfile={tmp_path}/cert&ssl_keyfile={tmp_path}/key"
        "&ssl_check_hostname=false"
    )
    assert full.tls_arguments() == {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": False,
        "ssl_ca_certs": f"{tmp_path}/ca",
        "ssl_certfile": f"{tmp_path}/cert",
        "ssl_keyfile": f"{tmp_path}/key",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("amqp://:hidden@h", "must begin with redis://"),
        ("sentinel://:hidden@h/0", "must begin with redis://"),
        ("redis://:hidden@[h/0", "is no URL"),
        ("redis://:hid#den@h/0", "write %23"),
        ("redis://:hidden@", "names no server"),
        ("redis://:hidden@:6379", "names no server"),
        ("redis://:hid/den@h", "port"),
        ("redis://:hidden@h:99999", "port"),
        ("redis://:hidden@h/hidden", "number of a database"),
        ("redis://:hidden@h/-1", "number of a database"),
        ("redis://:hidden@h1,h2", r"written as redis\+sentinel://"),
        ("redis+sentinel://:hidden@h1,h2", "names no master"),
        ("redis+sentinel://:hidden@h1,/m", "names no server"),
        ("redis+sentinel://:hidden@h/m/x", "number of a database"),
        ("redis://:hidden@h/0?hidden=1", "takes no parameter but ssl_ca_certs"),
        ("redis://:hid?den=1@h/0", "port"),
        ("redis://h/0?sentinel_password=hidden", "sentinel_password: is for redis"),
        ("redis://h/0?ssl_ca_certs=/hidden", "ssl_ca_certs: is for rediss://"),
        ("rediss://h/0?ssl_ca_certs=/hidden", "ssl_ca_certs: there is no such file"),
        ("rediss://h/0?ssl_certfile=/dev/null", "ssl_certfile: there is no such file"),
        ("rediss://h/0?ssl_cert_reqs=none", "certificates are always checked"),
        ("rediss://h/0?ssl_check_hostname=hidden", "must be true or false"),
    ],
)
def test_a_wrong_one_is_told_without_it(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        RedisUrl.parse(text)
    assert not {"hidden", "hid", "den"} & set(str(caught.value).replace("/", " ").split())
    assert "\n" not in str(caught.value)


def test_a_client_certificate_is_nothing_without_its_key(tmp_path: Path) -> None:
    (tmp_path / "cert").touch()
    with pytest.raises(ValueError, match="set both or neither"):
        RedisUrl.parse(f"rediss://h?ssl_certfile={tmp_path}/cert")
