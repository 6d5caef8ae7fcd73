"""The page that Prometheus reads."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector


def serve(collector: Collector, address: str, port: int) -> Callable[[], None]:
    """Serve a collector's metrics under /metrics from a thread of its own; return what ends that.

    Raises:
        OSError: the address can't be listened on.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    server, thread = start_http_server(port, address, registry=registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
