"""Where the vendor's own KMS is, for a command that needs no other setting."""

from typing import Literal

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from byok.settings import named_variables, refuse_simulator


class KmsSettings(BaseSettings):
    """What `byok master-key generate` needs of the environment, beside an AWS identity."""

    model_config = SettingsConfigDict(env_prefix="BYOK_", frozen=True, extra="ignore", env_ignore_empty=True)

    env: Literal["production", "dev", "test"] = "production"
    kms_endpoint_url: str | None = None

    @model_validator(mode="after")
    def _is_no_simulator_in_production(self) -> "KmsSettings":
        refuse_simulator(self.env, self.kms_endpoint_url)
        return self


def load_kms_settings() -> KmsSettings:
    """Parse it.

    Raises:
        ConfigurationError: it names the simulator in production.
    """
    with named_variables():
        return KmsSettings()
