"""Starts Flower with safe settings, or says in one line why not."""

import logging
import os
import signal
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from celery import Celery
from flower.command import apply_env_options, extract_settings
from flower.options import options
from flower.urls import settings as tornado_settings
from flower.utils.authentication import validate_auth_option

from byok.errors import ConfigurationError
from byok.flower.application import OFFLINE_WORKERS_SECONDS, ClosedFlower
from byok.flower.exposure import ACCEPTED, Exposure, weaknesses
from byok.flower.words import worded
from byok.logs import configure_logging, get_logger
from byok.queue import CeleryQueue, client_app
from byok.redis_url import RedisUrl
from byok.settings import FlowerSettings

log = get_logger(__name__)

# What a crash loses of the history at most. Pages wait while it is saved: see docs/flower.md.
_SAVE_EVERY_SECONDS: Final = 60
_MOST_WORKERS: Final = 1_000
# The UUID leads to the task's own page.
_COLUMNS: Final = "name,kwargs,state,result,received,uuid,runtime,worker"


def serve(settings: FlowerSettings, own: Mapping[str, str]) -> None:
    """Serve Flower until SIGTERM or SIGINT. ``own``: what the environment says to Flower itself.

    Raises:
        ConfigurationError: it would not be safe so, or can't be started.
    """
    exposure = Exposure.of(settings, own)
    refuse_weaknesses(exposure)
    if settings.flower_folder is not None:
        prepare_folder(settings.flower_folder)
    configure_logging(settings.log_format)
    # Each page asks every few seconds. What was refused stays in the log.
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    flower = make_flower(settings, exposure)
    for number in (signal.SIGTERM, signal.SIGINT):
        flower.io_loop.asyncio_loop.add_signal_handler(number, flower.stop)
    try:
        flower.start_http_server()
    except OSError as error:
        raise ConfigurationError(
            f"Flower can't listen on {settings.flower_address}:{settings.flower_port}: {error.strerror}",
            remedy="choose BYOK_FLOWER_ADDRESS and BYOK_FLOWER_PORT",
        ) from None
    log.info("flower_serves", address=settings.flower_address, port=settings.flower_port)
    flower.start()


def refuse_weaknesses(exposure: Exposure) -> None:
    """Look at what Flower is told before it is.

    Raises:
        ConfigurationError: the first weakness, or a variable for Flower that byok decides itself.
    """
    for name in sorted(exposure.own):
        option = name.removeprefix("FLOWER_").lower()
        if name not in ACCEPTED and (option in options or name == "FLOWER_UNAUTHENTICATED_API"):
            raise ConfigurationError(
                f"{name}: byok decides this itself",
                remedy="unset it; docs/settings.md lists BYOK_FLOWER_*, docs/flower.md what else is taken",
            )
    if exposure.has_oauth and not validate_auth_option(exposure.own["FLOWER_AUTH"]):
        raise ConfigurationError(
            "FLOWER_AUTH: names nobody in particular",
            remedy="write addresses with | between, or *@example.com",
        )
    for weakness in weaknesses(exposure):
        raise ConfigurationError(weakness.message, remedy=weakness.remedy)


def prepare_folder(folder: Path) -> None:
    """Make the folder for what outlives a restart, for its owner alone.

    Raises:
        ConfigurationError: others may write there. What is there is unpickled, which can run anything.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise ConfigurationError(
            f"BYOK_FLOWER_FOLDER: {error.strerror}: {folder}", remedy="name another"
        ) from None
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"BYOK_FLOWER_FOLDER: others may write in {folder}, and Flower runs what they would put there",
            remedy="make it Flower's user's own: chmod 700",
        )


def make_flower(settings: FlowerSettings, exposure: Exposure) -> ClosedFlower:
    """Flower as byok wants it; its options are the process's own."""
    apply_env_options()
    for name, value in _decided(settings, exposure).items():
        setattr(options, name, value)
    extract_settings()
    broker_url = settings.broker_url.get_secret_value()
    app: Celery = client_app(broker_url)
    servers = ", ".join(f"{host}:{port}" for host, port in RedisUrl.parse(broker_url).servers)
    return ClosedFlower(options, app, CeleryQueue(app).depths, servers, **tornado_settings)


def _decided(settings: FlowerSettings, exposure: Exposure) -> dict[str, Any]:
    folder = settings.flower_folder
    return {
        "basic_auth": [f"{user}:{password}" for user, password in exposure.users],
        "address": settings.flower_address,
        "port": settings.flower_port,
        "url_prefix": settings.flower_url_prefix,
        # Only a proxy may say who asks.
        "xheaders": settings.flower_behind_proxy,
        # Takes the buttons away that the table of URLs would refuse.
        "read_only": True,
        "debug": False,
        # Workers send events by themselves: nothing has to be sent to them.
        "enable_events": False,
        "persistent": folder is not None,
        "db": "" if folder is None else str(folder / "flower"),
        "state_save_interval": 0 if folder is None else _SAVE_EVERY_SECONDS * 1000,
        "max_tasks": settings.flower_max_tasks,
        "max_workers": _MOST_WORKERS,
        "purge_offline_workers": int(OFFLINE_WORKERS_SECONDS),
        "tasks_columns": _COLUMNS,
        "format_task": worded,
    }
