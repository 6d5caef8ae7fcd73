"""All settings, from environment variables ``BYOK_*``, parsed once."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from byok.core.arns import KmsKeyArn, RoleArn
from byok.errors import ConfigurationError, InvalidArn
from byok.failpoints import FailPoint
from byok.logs import get_logger
from byok.postgres_url import PostgresUrl
from byok.redis_url import RedisUrl

log = get_logger(__name__)

Seconds = Annotated[float, Field(gt=0)]

_LONGEST_PROBE_TICK_SECONDS = 5.0
_LONGEST_FAN_OUT_TICK_SECONDS = 10.0


class Settings(BaseSettings):
    """What the environment says. Secrets don't show in ``repr``."""

    # An empty variable counts as unset: compose files pass on what may be absent.
    model_config = SettingsConfigDict(env_prefix="BYOK_", frozen=True, extra="ignore", env_ignore_empty=True)

    env: Literal["production", "dev", "test"] = Field(
        "production", description="`dev` and `test` allow the KMS simulator"
    )
    database_url: SecretStr = Field(
        description="PostgreSQL, as `postgresql+psycopg://USER:PASSWORD@HOST/DB`, or with several servers, "
        "`…@HOST,HOST/DB?target_session_attrs=read-write`; see [deployment](deployment.md)"
    )
    broker_url: SecretStr = Field(
        description="Redis for the queue, as `redis://…/0`, `rediss://…/0` (TLS), "
        "`redis+sentinel://…,…/MASTER/0`; must not evict; see [deployment](deployment.md)"
    )
    cache_url: SecretStr = Field(description="Redis for leases, written as for the queue; may evict")
    master_keys: SecretStr | None = Field(
        None,
        description="master key ring, `ID:BASE64,ID:BASE64`: the first seals, all open; or `ID:kms:BASE64`, "
        "wrapped by the vendor's own KMS key",
    )
    master_keys_file: Path | None = Field(
        None, description="file with the master key ring, one a line; others must not be able to read it"
    )
    master_keys_kms_key_arn: str | None = Field(
        None,
        description="the vendor's own KMS key that wraps the master keys `ID:kms:BASE64`, where the entry "
        "does not name it; see [master keys](master-keys.md#sources)",
    )
    vendor_role_arn: str | None = Field(
        None, description="the IAM role that the workers run under; customers' policies name it"
    )
    canary_role_arn: str | None = Field(
        None,
        description="a role of the vendor's own that the workers may assume: when a customer's role refuses "
        "them and this one does, too, the fault is ours and suspends nobody. Set it in production: without "
        "it the first four tenants that are refused are suspended, and a warning at the start says so",
    )
    kms_regions: str | None = Field(
        None, description="regions whose KMS keys are accepted, `eu-central-1,eu-west-1`; unset: all"
    )
    refuse_excess_rights: bool = Field(
        False, description="let no tenant become active whose role or key policy allows more than needed"
    )
    tenant_kms_calls: int = Field(
        2,
        ge=1,
        description="KMS calls of one tenant at a time, per process: a quarter of a worker's threads; one "
        "while its KMS is slow",
    )
    kms_endpoint_url: str | None = Field(None, description="KMS simulator; in `dev` and `test` only")
    recheck_seconds: Seconds = Field(
        5.0, description="how long a process may go on without looking at a tenant's state again"
    )
    max_lease_uses: int = Field(
        1_000_000,
        ge=1,
        le=10_000_000,
        description="how often a process uses a lease before it fetches it again, from Redis or KMS; as "
        "many messages share a salt",
    )
    application_database_url: SecretStr | None = Field(
        None,
        description="the application's PostgreSQL, whose rows `byok reencrypt` rewrites; it needs SELECT and "
        "UPDATE on the columns that are registered, nothing more",
    )
    database_pool_size: int = Field(10, ge=1, description="connections to PostgreSQL, per process")
    worker_concurrency: int = Field(8, ge=1, description="threads of a worker process")
    dispatch_interval_seconds: Seconds = Field(30.0, description="how often Beat looks for due keys")
    rotations_in_flight: int = Field(
        5_000,
        ge=10,
        description="how many rotations wait or run at a time, of the whole fleet; a tenth of that for one "
        "tenant. Keys that are due beyond that wait their turn: forced rotations are not held back",
    )
    sweep_interval_seconds: Seconds = Field(
        15.0,
        description="how often the sweeper looks for lost requests and dead workers; also how long a "
        "worker's claim lasts without renewal, so that both are found within two periods",
    )
    probe_interval_seconds: Seconds = Field(
        300.0,
        description="how often each tenant's access is proven; more often where half of a key's cache TTL is "
        "shorter",
    )
    validate_interval_seconds: Seconds = Field(
        86_400.0, description="how often each active version is validated, evenly spread over all keys"
    )
    sync_interval_seconds: Seconds = Field(
        43_200.0,
        description="how often to read what customers' KMS keys say of rotation; twice a day, so that a "
        "rotated KMS key is followed within one",
    )
    watch_interval_seconds: Seconds = Field(
        86_400.0,
        description="how often to look over each customer's side for what was changed there, evenly spread "
        "over all tenants; see [watch](watch.md)",
    )
    request_log_folder: Path | None = Field(
        None,
        description="folder of this host's, on a disk that outlives containers, in which each process writes "
        "down every request to KMS before it is sent; within 30 s it is moved to PostgreSQL, see "
        "[reconcile](reconcile.md#how-our-log-is-written). One for each fleet. Unset: one in the folder for "
        "temporary files",
    )
    request_log_days: int = Field(
        90, ge=1, le=3650, description="how long the log of requests is kept, to compare with CloudTrail"
    )
    max_rotation_days: int = Field(
        3650, ge=1, le=3650, description="no key's rotation period is longer, whoever decides it"
    )
    metrics_address: str = Field("127.0.0.1", description="where a worker serves its metrics")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="port of a worker's Prometheus metrics; unset: not served"
    )
    exporter_address: str = Field("127.0.0.1", description="where `byok exporter` serves the fleet's metrics")
    exporter_port: int = Field(9465, ge=1, le=65535, description="port of `byok exporter`")
    health_folder: Path | None = Field(
        None,
        description="folder in which a worker and a Beat write every 2 s how they are, for `byok-health`; "
        "one of each at most. Unset: nothing is written",
    )
    flower_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="where Flower is, as `https://flower.example`: `byok doctor` sees whether it shows "
        "itself without a password",
    )
    fail_point: FailPoint | None = Field(
        None, description="for tests: the process kills itself there; in `test` only"
    )
    log_format: Literal["json", "console"] = Field("json", description="how log lines look")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        description="the least level of a worker's and Beat's log lines; `DEBUG`, which shows each request "
        "to KMS, is for byok's own lines alone. See [logs](logs.md)",
    )
    tracing: bool = Field(
        False,
        description="make OpenTelemetry spans, from the request of a rotation to each request to KMS; needs "
        "`byok[otel]`. Where they go, the standard's `OTEL_*` say. See [logs](logs.md#traces)",
    )

    @field_validator("database_url", "application_database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            PostgresUrl.parse(value.get_secret_value())
        return value

    @field_validator("broker_url", "cache_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        RedisUrl.parse(value.get_secret_value())
        return value

    @field_validator("vendor_role_arn", "canary_role_arn")
    @classmethod
    def _is_role(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                RoleArn.parse(value)
            except Exception as error:
                raise ValueError("must be the ARN of an IAM role") from error
        return value

    @field_validator("master_keys_kms_key_arn")
    @classmethod
    def _is_kms_key(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                KmsKeyArn.parse(value)
            except InvalidArn as error:
                raise ValueError("must be the ARN of a KMS key, not of an alias") from error
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> "Settings":
        if (self.master_keys is None) == (self.master_keys_file is None):
            raise ValueError("BYOK_MASTER_KEYS: set it, or BYOK_MASTER_KEYS_FILE, and not both")
        refuse_simulator(self.env, self.kms_endpoint_url)
        if self.fail_point is not None and self.env != "test":
            raise ValueError("BYOK_FAIL_POINT: is for BYOK_ENV=test only")
        return self

    @property
    def probe_tick_seconds(self) -> float:
        """How often to look whose probe is due: no tenant's probe period is shorter than that."""
        return min(self.probe_interval_seconds, _LONGEST_PROBE_TICK_SECONDS)

    @property
    def validate_tick_seconds(self) -> float:
        """How often to look which keys are to be validated."""
        return min(self.validate_interval_seconds, _LONGEST_FAN_OUT_TICK_SECONDS)

    @property
    def sync_tick_seconds(self) -> float:
        """How often to look which tenants are to be synced."""
        return min(self.sync_interval_seconds, _LONGEST_FAN_OUT_TICK_SECONDS)

    @property
    def watch_tick_seconds(self) -> float:
        """How often to look which tenants' sides are to be looked over."""
        return min(self.watch_interval_seconds, _LONGEST_FAN_OUT_TICK_SECONDS)

    @property
    def webhook_tick_seconds(self) -> float:
        """How often to look which messages to customers' endpoints are due."""
        return _LONGEST_FAN_OUT_TICK_SECONDS

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions whose KMS keys are accepted; none means all."""
        return tuple((self.kms_regions or "").replace(",", " ").split())

    def read_master_keys(self) -> str:
        """The text of the master key ring.

        Raises:
            ConfigurationError: the file can't be read, or others can read it.
        """
        if self.master_keys is not None:
            return self.master_keys.get_secret_value()
        assert self.master_keys_file is not None
        try:
            with self.master_keys_file.open() as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & stat.S_IROTH:
                    raise ConfigurationError(
                        f"BYOK_MASTER_KEYS_FILE: everybody can read {self.master_keys_file} (mode {mode:o})",
                        remedy="chmod 400 for the user that byok runs as, or 440 for its group",
                    )
                return file.read()
        except OSError as error:
            raise ConfigurationError(
                f"BYOK_MASTER_KEYS_FILE: {error.strerror}: {self.master_keys_file}",
                remedy="byok master-key generate prints a key to put there",
            ) from error
        except UnicodeDecodeError:
            # from None: the cause holds what was read, which may be a key
            raise ConfigurationError(
                f"BYOK_MASTER_KEYS_FILE: {self.master_keys_file} is no text",
                remedy="each line reads ID:BASE64; byok master-key generate prints one",
            ) from None


def load_settings() -> Settings:
    """Parse the environment.

    Raises:
        ConfigurationError: naming the first variable that is missing or wrong, never its value.
    """
    with named_variables():
        settings = Settings()  # type: ignore[call-arg]  # the fields come from the environment
    if settings.env == "production" and settings.canary_role_arn is None:
        log.warning("no_canary_role", variable="BYOK_CANARY_ROLE_ARN", see="docs/settings.md")
    return settings


@contextmanager
def named_variables() -> Iterator[None]:
    """Raise ConfigurationError, naming a variable, for what pydantic raises inside the block."""
    try:
        yield
    except ValidationError as error:
        # from None: pydantic's error holds the values, and some are secret
        first = error.errors(include_input=False, include_url=False)[0]
        variable = "".join(f"BYOK_{str(part).upper()}: " for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            message = "is not set"
        raise ConfigurationError(
            f"{variable}{message}",
            remedy="see docs/settings.md; in a checkout, `byok up` starts a stack and prints all of them",
        ) from None


def refuse_simulator(env: str, kms_endpoint_url: str | None) -> None:
    """Raises ValueError: the simulator is no KMS for production."""
    if kms_endpoint_url is not None and env == "production":
        raise ValueError("BYOK_KMS_ENDPOINT_URL: is for BYOK_ENV=dev and test only")


class FlowerSettings(BaseSettings):
    """What `byok flower` needs: the broker, and no database, master key or AWS identity."""

    model_config = SettingsConfigDict(env_prefix="BYOK_", frozen=True, extra="ignore", env_ignore_empty=True)

    env: Literal["production", "dev", "test"] = "production"
    broker_url: SecretStr
    log_format: Literal["json", "console"] = "json"
    flower_basic_auth: SecretStr | None = Field(
        None,
        validation_alias="FLOWER_BASIC_AUTH",
        description="who may look at Flower, `USER:PASSWORD,USER:PASSWORD`; see [Flower](flower.md)",
    )
    flower_users_file: Path | None = Field(
        None, description="file with more of them, `USER:PASSWORD` one a line"
    )
    flower_address: str = Field("127.0.0.1", min_length=1, description="where Flower listens")
    flower_port: int = Field(5555, ge=1, le=65535, description="Flower's port")
    flower_behind_proxy: bool = Field(
        False,
        description="a proxy that does TLS stands before Flower, which may listen beyond loopback for it",
    )
    flower_plain_http: bool = Field(
        False,
        description="let Flower take passwords without TLS beyond loopback: in a container whose port is "
        "published on the host's loopback",
    )
    flower_url_prefix: str | None = Field(
        None,
        pattern=r"^/?[\w-]+(/[\w-]+)*/?$",
        description="path under which a proxy shows Flower, as `flower`",
    )
    flower_folder: Path | None = Field(
        None,
        description="folder in which Flower keeps the tasks that it saw; unset: they are gone at a restart",
    )
    flower_max_tasks: int = Field(10_000, ge=100, le=100_000, description="how many tasks Flower remembers")

    @field_validator("broker_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        RedisUrl.parse(value.get_secret_value())
        return value


def load_flower_settings() -> FlowerSettings:
    """Parse what of the environment is for `byok flower`.

    Raises:
        ConfigurationError: naming the first variable that is missing or wrong, never its value.
    """
    with named_variables():
        return FlowerSettings()  # type: ignore[call-arg]  # the fields come from the environment


def flower_environment() -> dict[str, str]:
    """What the environment says to Flower itself: ``FLOWER_*``."""
    return {name: value for name, value in os.environ.items() if name.startswith("FLOWER_") and value}


class StackSettings(BaseSettings):
    """Settings of the embedded stack, for development."""

    model_config = SettingsConfigDict(env_prefix="BYOK_", frozen=True, extra="ignore")

    home: Path = Field(Path(".byok"), description="folder of the embedded stack that `byok up` keeps")


def load_stack_settings() -> StackSettings:
    """Parse what of the environment is for the embedded stack."""
    return StackSettings()  # type: ignore[call-arg]  # the fields come from the environment


def inherited_environment() -> dict[str, str]:
    """What the processes of the embedded stack take from ours: where the application's rows are."""
    name = "BYOK_APPLICATION_DATABASE_URL"
    return {name: os.environ[name]} if name in os.environ else {}


def multiprocess_folder() -> Path | None:
    """Where the processes of one worker or service count together; None: each counts for itself.

    The variable is prometheus_client's own, which looks at it when it is imported.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def child_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child process: ours without any ``BYOK_*``, and ``additions``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BYOK_")}
    return kept | dict(additions)


def use_environment(environment: Mapping[str, str]) -> None:
    """Make this process itself run under ``environment`` as far as byok and AWS are concerned."""
    for name in [name for name in os.environ if name.startswith(("BYOK_", "AWS_"))]:
        del os.environ[name]
    os.environ.update(environment)
