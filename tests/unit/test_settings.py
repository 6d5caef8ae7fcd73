"""A wrong setting is one line that names the variable and never its value."""

from pathlib import Path

import pytest

from byok.errors import ConfigurationError
from byok.failpoints import FailPoint
from byok.settings import load_settings
from byok.wiring import build

GOOD = {
    "BYOK_ENV": "test",
    "BYOK_DATABASE_URL": "postgresql+psycopg://u:hidden-password@h/d",
    "BYOK_BROKER_URL": "redis://:hidden-password@h/0",
    "BYOK_CACHE_URL": "rediss://:hidden-password@h/0",
    "BYOK_MASTER_KEYS": "mk-1:" + "A" * 43 + "=",
}


@pytest.fixture(autouse=True)
def good(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def test_good_settings_load_and_show_no_secret() -> None:
    settings = load_settings()
    assert "hidden-password" not in repr(settings) + str(settings) + str(settings.model_dump())
    assert "AAAA" not in repr(settings)
    assert settings.read_master_keys() == GOOD["BYOK_MASTER_KEYS"]


@pytest.mark.parametrize("name", ["BYOK_DATABASE_URL", "BYOK_BROKER_URL", "BYOK_CACHE_URL"])
def test_a_missing_url_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match=f"{name}: is not set"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BYOK_DATABASE_URL", "mysql://u:hidden-password@h/d"),
        ("BYOK_DATABASE_URL", "postgresql+psycopg://u:hidden-password@h:hidden-password/d"),
        ("BYOK_APPLICATION_DATABASE_URL", "postgresql+psycopg://u:hidden-password@h"),
        ("BYOK_BROKER_URL", "amqp://u:hidden-password@h"),
        ("BYOK_BROKER_URL", "redis+sentinel://:hidden-password@h"),
        ("BYOK_CACHE_URL", "hidden-password"),
        ("BYOK_CACHE_URL", "rediss://:hidden-password@h/0?ssl_ca_certs=/hidden-password"),
        ("BYOK_ENV", "hidden-password"),
        ("BYOK_RECHECK_SECONDS", "0"),
        ("BYOK_RECHECK_SECONDS", "hidden-password"),
        ("BYOK_DATABASE_POOL_SIZE", "0"),
        ("BYOK_VENDOR_ROLE_ARN", "hidden-password"),
        ("BYOK_LOG_FORMAT", "hidden-password"),
    ],
)
def test_a_wrong_value_names_the_variable_and_hides_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert caught.value.message.startswith(f"{name}: ")
    assert "\n" not in caught.value.message
    assert "hidden-password" not in caught.value.message
    assert caught.value.__suppress_context__


def test_master_keys_come_from_the_variable_or_the_file_and_not_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("BYOK_MASTER_KEYS_FILE", f"{tmp_path}/keys")
    with pytest.raises(ConfigurationError, match="not both"):
        load_settings()
    monkeypatch.delenv("BYOK_MASTER_KEYS")
    with pytest.raises(ConfigurationError, match="BYOK_MASTER_KEYS_FILE: No such file"):
        load_settings().read_master_keys()
    monkeypatch.delenv("BYOK_MASTER_KEYS_FILE")
    with pytest.raises(ConfigurationError, match="BYOK_MASTER_KEYS"):
        load_settings()


@pytest.mark.parametrize(("mode", "is_read"), [(0o400, True), (0o640, True), (0o644, False), (0o604, False)])
def test_a_file_of_master_keys_that_everybody_can_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, is_read: bool
) -> None:
    file = tmp_path / "keys"
    file.write_text("mk-1:hidden-needle")
    file.chmod(mode)
    monkeypatch.delenv("BYOK_MASTER_KEYS")
    monkeypatch.setenv("BYOK_MASTER_KEYS_FILE", str(file))
    if is_read:
        assert load_settings().read_master_keys() == "mk-1:hidden-needle"
        return
    with pytest.raises(ConfigurationError, match="everybody can read") as refused:
        load_settings().read_master_keys()
    assert "hidden-needle" not in str(refused.value)


def test_a_wrong_master_key_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYOK_MASTER_KEYS", "mk-1:c2hvcnQ=")
    with pytest.raises(ConfigurationError, match="has 5 bytes, not 32"):
        build(load_settings())


def test_the_simulator_is_refused_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYOK_KMS_ENDPOINT_URL", "http://127.0.0.1:1")
    load_settings()
    monkeypatch.delenv("BYOK_ENV")
    with pytest.raises(ConfigurationError, match="BYOK_KMS_ENDPOINT_URL"):
        load_settings()


@pytest.mark.parametrize("env", ["production", "dev"])
def test_fail_points_are_for_tests_only(monkeypatch: pytest.MonkeyPatch, env: str) -> None:
    monkeypatch.setenv("BYOK_FAIL_POINT", "promoting")
    assert load_settings().fail_point is FailPoint.PROMOTING
    monkeypatch.setenv("BYOK_ENV", env)
    with pytest.raises(ConfigurationError, match="BYOK_FAIL_POINT: is for BYOK_ENV=test only"):
        load_settings()


def test_production_without_a_canary_is_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load_settings()
    assert caplog.messages == []
    monkeypatch.setenv("BYOK_ENV", "production")
    load_settings()
    assert caplog.messages == ["no_canary_role"]
    monkeypatch.setenv("BYOK_CANARY_ROLE_ARN", "arn:aws:iam::111111111111:role/canary")
    load_settings()
    assert caplog.messages == ["no_canary_role"]
