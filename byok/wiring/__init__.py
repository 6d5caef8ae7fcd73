"""The one place that knows every adapter: builds the services from settings."""

from byok.wiring.assembly import Services, assemble
from byok.wiring.exporter import Exporter, build_exporter
from byok.wiring.runtime import Runtime, aconnect, build, connect, store_ping

__all__ = [
    "Exporter",
    "Runtime",
    "Services",
    "aconnect",
    "assemble",
    "build",
    "build_exporter",
    "connect",
    "store_ping",
]
