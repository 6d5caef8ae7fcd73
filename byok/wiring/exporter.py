"""The exporter: reads the fleet's metrics, and needs neither KMS nor master keys for it."""

from dataclasses import dataclass
from datetime import timedelta

from byok.cache.redis import RedisLeaseCache
from byok.core.metric_list import Sample
from byok.queue import CeleryQueue
from byok.services.fleet_metrics import read_depths, read_settings, read_store
from byok.services.gathering import Gathering
from byok.settings import Settings
from byok.store.postgres import PostgresStore, create_engine
from byok.wiring.periods import periods_of

_CONNECTIONS = 1  # to PostgreSQL: it is read by one thread at a time


@dataclass(frozen=True, slots=True)
class Exporter:
    """What reads, and the connections behind it."""

    gathering: Gathering
    store: PostgresStore
    queue: CeleryQueue
    cache: RedisLeaseCache

    def close(self) -> None:
        """Close all connections."""
        self.queue.close()
        self.cache.close()
        self.store.close()


def build_exporter(settings: Settings) -> Exporter:
    """Build the exporter. Connects to nothing yet.

    Raises:
        ConfigurationError: a URL is wrong.
    """
    store = PostgresStore(create_engine(settings.database_url.get_secret_value(), _CONNECTIONS))
    queue = CeleryQueue.connect(settings.broker_url.get_secret_value())
    cache = RedisLeaseCache(settings.cache_url.get_secret_value())

    def ping_cache() -> tuple[Sample, ...]:
        cache.ping()
        return ()

    gathering = Gathering(
        {
            "postgresql": lambda: read_store(store, store),
            "broker": lambda: read_depths(queue.depths()),
            "cache": ping_cache,
        },
        read_settings(periods_of(settings), timedelta(seconds=settings.recheck_seconds)),
        store,
    )
    return Exporter(gathering, store, queue, cache)
