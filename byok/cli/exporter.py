"""``byok exporter``: serves the fleet's metrics until it is told to stop."""

import signal

from byok.cli.output import console
from byok.errors import ConfigurationError

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exporter() -> None:
    """Serve the metrics of the whole fleet under /metrics, until SIGTERM or Ctrl-C. One is enough.

    Reads PostgreSQL and Redis when it is asked, at most every 5 seconds. What can't be reached is missing
    from the page, and byok_reachable says so.
    """
    # Imported on use: SQLAlchemy and Celery would slow `--help` down.
    from byok.logs import configure_logging
    from byok.metrics import FleetCollector, serve
    from byok.settings import load_settings
    from byok.wiring import build_exporter

    settings = load_settings()
    configure_logging(settings.log_format)
    _hold_back_signals()
    built = build_exporter(settings)
    address, port = settings.exporter_address, settings.exporter_port
    try:
        end = serve(FleetCollector(built.gathering.samples), address, port)
    except OSError as error:
        raise ConfigurationError(
            f"{address}:{port} can't be listened on: {error.strerror}",
            remedy="set BYOK_EXPORTER_ADDRESS and BYOK_EXPORTER_PORT; does another exporter run?",
        ) from error
    console.print(f"the fleet's metrics are at http://{address}:{port}/metrics", soft_wrap=True)
    signal.sigwait(_STOP_SIGNALS)
    end()
    built.close()


def _hold_back_signals() -> None:
    """Until the main thread waits for them. No thread that is started from now on gets them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    for number in _STOP_SIGNALS:  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, signal.SIG_DFL)
