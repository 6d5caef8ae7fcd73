"""Who could reach Flower, and what speaks against starting it so. Pure: nothing is looked up or opened."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from byok.errors import ConfigurationError
from byok.server_lists import is_loopback
from byok.settings import FlowerSettings

# NIST SP 800-63B-4, 3.1.1.2: 15 characters at least where the password is the only factor.
SHORTEST_PASSWORD: Final = 15
_FEWEST_DIFFERENT: Final = 6
# What passwords are called and made of in examples.
_TRIVIAL: Final = (
    "password",
    "passw0rd",
    "changeme",
    "change-me",
    "letmein",
    "secret",
    "12345",
    "qwerty",
    "admin",
)

# Flower's own options that stay the operator's, by their variables: signing in elsewhere, and TLS.
OAUTH: Final = (
    "FLOWER_AUTH_PROVIDER",
    "FLOWER_OAUTH2_KEY",
    "FLOWER_OAUTH2_SECRET",
    "FLOWER_OAUTH2_REDIRECT_URI",
)
ACCEPTED: Final = frozenset(
    {"FLOWER_BASIC_AUTH", "FLOWER_AUTH", *OAUTH, "FLOWER_COOKIE_SECRET"}
    | {
        "FLOWER_CERTFILE",
        "FLOWER_KEYFILE",
        "FLOWER_CA_CERTS",
        "FLOWER_INSPECT_TIMEOUT",
        "FLOWER_NATURAL_TIME",
    }
)


@dataclass(frozen=True, slots=True)
class Weakness:
    """What is wrong with a set-up, and what to do; neither holds a password."""

    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """How Flower is to be reached, and by whom."""

    is_development: bool
    address: str
    users: tuple[tuple[str, str], ...] = field(repr=False)
    behind_proxy: bool = False
    plain_http: bool = False
    own: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What Flower itself was told: ``FLOWER_*``."""

    @classmethod
    def of(cls, settings: FlowerSettings, own: Mapping[str, str]) -> Self:
        """What settings, and variables for Flower itself, come to.

        Raises:
            ConfigurationError: users can't be read.
        """
        return cls(
            is_development=settings.env in ("dev", "test"),
            address=settings.flower_address,
            users=_users_of(settings),
            behind_proxy=settings.flower_behind_proxy,
            plain_http=settings.flower_plain_http,
            own=own,
        )

    @property
    def has_oauth(self) -> bool:
        """Whether users sign in elsewhere."""
        return "FLOWER_AUTH" in self.own

    @property
    def has_tls(self) -> bool:
        """Whether Flower does TLS itself."""
        return "FLOWER_CERTFILE" in self.own and "FLOWER_KEYFILE" in self.own


def weaknesses(exposure: Exposure) -> list[Weakness]:
    """All that speaks against starting Flower so; nothing if it is safe."""
    return [*_strangers(exposure), *_passwords(exposure), *_wiretaps(exposure), *_own_options(exposure)]


def _strangers(exposure: Exposure) -> Iterator[Weakness]:
    if exposure.users or exposure.has_oauth:
        return
    if not (exposure.is_development and is_loopback(exposure.address)):
        yield Weakness(
            "Flower would be open to everybody who reaches it",
            "set FLOWER_BASIC_AUTH, BYOK_FLOWER_USERS_FILE or, for OAuth, FLOWER_AUTH: docs/flower.md",
        )


def _passwords(exposure: Exposure) -> Iterator[Weakness]:
    for user, password in exposure.users:
        if not (user + password).isascii():
            # Flower compares them by hmac.compare_digest, which takes no other text.
            yield Weakness(f"the name or password of {user!r} is not plain ASCII", "choose another")
        elif not exposure.is_development and (reason := _weak(user, password)):
            yield Weakness(
                f"Flower's password of {user!r} {reason}",
                "make one up: python -c 'import secrets; print(secrets.token_urlsafe(24))'",
            )


def _weak(user: str, password: str) -> str | None:
    lowered = password.lower()
    if len(password) < SHORTEST_PASSWORD:
        return f"has less than {SHORTEST_PASSWORD} characters"
    if len(set(lowered)) < _FEWEST_DIFFERENT:
        return f"has less than {_FEWEST_DIFFERENT} different characters"
    if user.lower() in lowered or any(word in lowered for word in _TRIVIAL):
        return "is easily guessed"
    return None


def _wiretaps(exposure: Exposure) -> Iterator[Weakness]:
    if is_loopback(exposure.address) or exposure.has_tls or exposure.behind_proxy or exposure.plain_http:
        return
    yield Weakness(
        f"passwords would go to {exposure.address} without TLS",
        "set FLOWER_CERTFILE and FLOWER_KEYFILE, or say what protects them: docs/flower.md",
    )


def _own_options(exposure: Exposure) -> Iterator[Weakness]:
    if ("FLOWER_CERTFILE" in exposure.own) != ("FLOWER_KEYFILE" in exposure.own):
        yield Weakness("FLOWER_CERTFILE and FLOWER_KEYFILE belong together", "set both")
    if exposure.has_oauth and (missing := [name for name in OAUTH if name not in exposure.own]):
        yield Weakness(f"FLOWER_AUTH needs {', '.join(missing)}", "see docs/flower.md")
    secret = exposure.own.get("FLOWER_COOKIE_SECRET")
    if secret is not None and len(secret) < 32:
        yield Weakness(
            "FLOWER_COOKIE_SECRET has less than 32 characters", "leave it out, or make up a longer one"
        )


def _users_of(settings: FlowerSettings) -> tuple[tuple[str, str], ...]:
    users = []
    if settings.flower_basic_auth is not None:
        # The comma is Flower's own way to write several.
        users += _parsed("FLOWER_BASIC_AUTH", settings.flower_basic_auth.get_secret_value().split(","))
    if settings.flower_users_file is not None:
        try:
            lines = settings.flower_users_file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"BYOK_FLOWER_USERS_FILE: {type(error).__name__} at {settings.flower_users_file}",
                remedy="write USER:PASSWORD, one a line",
            ) from None
        users += _parsed("BYOK_FLOWER_USERS_FILE", [line for line in lines if line.strip()])
    return tuple(users)


def _parsed(variable: str, texts: list[str]) -> list[tuple[str, str]]:
    users = []
    for text in texts:
        user, _, password = text.strip().partition(":")
        if not user or not password:
            # Never the text: what lacks the colon may be a password.
            raise ConfigurationError(
                f"{variable}: is not USER:PASSWORD", remedy="write both, with a colon between"
            )
        users.append((user, password))
    return users
