"""What Flower is not started with."""

from pathlib import Path
from typing import Any

import pytest

from byok.errors import ConfigurationError
from byok.flower.exposure import Exposure, weaknesses
from byok.flower.serving import prepare_folder, refuse_weaknesses
from byok.settings import FlowerSettings, load_flower_settings

GOOD = "u7Jq-x0pTz_4VbN2wLs"
OAUTH = {
    "FLOWER_AUTH": "*@example.com",
    "FLOWER_AUTH_PROVIDER": "flower.views.auth.GoogleAuth2LoginHandler",
    "FLOWER_OAUTH2_KEY": "k",
    "FLOWER_OAUTH2_SECRET": "s",
    "FLOWER_OAUTH2_REDIRECT_URI": "https://flower.example.com/login",
}
TLS = {"FLOWER_CERTFILE": "/c", "FLOWER_KEYFILE": "/k"}


def exposure(env: str = "production", own: dict[str, str] | None = None, **settings: object) -> Exposure:
    given = {"env": env, "broker_url": "redis://h/0", **settings}
    return Exposure.of(FlowerSettings.model_validate(given), own or {})


def users(text: str) -> dict[str, Any]:
    return {"FLOWER_BASIC_AUTH": text}


@pytest.mark.parametrize(
    "safe",
    [
        exposure(**users(f"ops:{GOOD}")),
        exposure(**users(f"ops:{GOOD},dev:x{GOOD}")),
        exposure(own=OAUTH),
        exposure("dev"),
        exposure("test", flower_address="::1"),
        exposure("dev", flower_address="localhost"),
        exposure("dev", **users("byok:x")),
        exposure(own=TLS, flower_address="0.0.0.0", **users(f"ops:{GOOD}")),
        exposure(flower_address="10.0.0.1", flower_behind_proxy=True, **users(f"ops:{GOOD}")),
        exposure(flower_address="0.0.0.0", flower_plain_http=True, **users(f"ops:{GOOD}")),
        exposure(own=OAUTH | {"FLOWER_COOKIE_SECRET": "x" * 32}),
    ],
)
def test_what_is_safe_is_let_through(safe: Exposure) -> None:
    assert weaknesses(safe) == []
    refuse_weaknesses(safe)


@pytest.mark.parametrize(
    ("unsafe", "message"),
    [
        (exposure(), "open to everybody"),
        (exposure("dev", flower_address="0.0.0.0", flower_plain_http=True), "open to everybody"),
        (exposure("dev", flower_address="flower.internal", flower_behind_proxy=True), "open to everybody"),
        (exposure(**users("user:password")), "has less than 15 characters"),
        (exposure(**users(f"ops:{GOOD},dev:short")), "of 'dev' has less than 15 characters"),
        (exposure(**users("ops:aaaaaaaaaaaaaaaaaaaa")), "less than 6 different"),
        (exposure(**users("ops:my-long-Password-1234")), "easily guessed"),
        (exposure(**users("grace:graceGRACE-hop-hop-hop")), "easily guessed"),
        (exposure(**users("ops:u7Jq-x0pTz_4VbNé2wLs")), "not plain ASCII"),
        (exposure("dev", **users("byok:é")), "not plain ASCII"),
        (exposure(flower_address="0.0.0.0", **users(f"ops:{GOOD}")), "without TLS"),
        (exposure("dev", flower_address="10.1.2.3", **users("byok:x")), "without TLS"),
        (exposure(own={"FLOWER_CERTFILE": "/c"}, **users(f"ops:{GOOD}")), "belong together"),
        (exposure(own={"FLOWER_AUTH": "a@example.com"}), "FLOWER_AUTH needs FLOWER_AUTH_PROVIDER"),
        (exposure(own=OAUTH | {"FLOWER_COOKIE_SECRET": "x" * 31}), "FLOWER_COOKIE_SECRET"),
        (exposure(own=OAUTH | {"FLOWER_AUTH": "*"}), "nobody in particular"),
        (exposure(own={"FLOWER_UNAUTHENTICATED_API": "1"}, **users(f"ops:{GOOD}")), "decides this itself"),
        (exposure(own={"FLOWER_READ_ONLY": "0"}, **users(f"ops:{GOOD}")), "FLOWER_READ_ONLY"),
        (exposure(own={"FLOWER_UNIX_SOCKET": "/s"}, **users(f"ops:{GOOD}")), "FLOWER_UNIX_SOCKET"),
        (exposure(own={"FLOWER_DEBUG": "1"}, **users(f"ops:{GOOD}")), "FLOWER_DEBUG"),
    ],
)
def test_what_is_not_safe_is_refused_in_one_line_with_a_remedy(unsafe: Exposure, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        refuse_weaknesses(unsafe)
    assert caught.value.remedy
    told = f"{caught.value.message} {caught.value.remedy} {unsafe!r}"
    assert "\n" not in told
    assert not any(password in told for _, password in unsafe.users if len(password) > 8)


def test_users_come_from_the_environment_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "users"
    file.write_text(f"ada:{GOOD},with-comma\n\n grace:x{GOOD}:colon\n")
    monkeypatch.setenv("BYOK_BROKER_URL", "redis://h/0")
    monkeypatch.setenv("FLOWER_BASIC_AUTH", f"ops:{GOOD}")
    monkeypatch.setenv("BYOK_FLOWER_USERS_FILE", str(file))
    settings = load_flower_settings()
    assert Exposure.of(settings, {}).users == (
        ("ops", GOOD),
        ("ada", f"{GOOD},with-comma"),
        ("grace", f"x{GOOD}:colon"),
    )
    assert GOOD not in repr(settings)


@pytest.mark.parametrize("text", ["hidden-password", ":hidden-password", "hidden-password:"])
def test_what_is_no_user_and_password_is_named_and_not_shown(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="FLOWER_BASIC_AUTH") as caught:
        exposure(**users(text))
    assert "hidden" not in str(caught.value)
    file = tmp_path / "users"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="BYOK_FLOWER_USERS_FILE"):
        exposure(flower_users_file=file)
    with pytest.raises(ConfigurationError, match="FileNotFoundError"):
        exposure(flower_users_file=tmp_path / "absent")


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "flower"
    prepare_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    prepare_folder(folder)
    folder.chmod(0o770)
    with pytest.raises(ConfigurationError, match="others may write"):
        prepare_folder(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="BYOK_FLOWER_FOLDER"):
        prepare_folder(tmp_path / "file" / "flower")
