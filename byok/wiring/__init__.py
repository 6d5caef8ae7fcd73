"""The one place that knows every adapter: builds the services from settings."""

from byok.wiring.assembly import Services, assemble
from byok.wiring.runtime import Runtime, aconnect, build, connect

__all__ = ["Runtime", "Services", "aconnect", "assemble", "build", "connect"]
