"""The workers' transport: an acknowledgement after the connection's end is a connection error."""

import pytest

from byok.settings import Settings
from workers.app import make_app


def test_a_channel_without_connection_says_so(settings: Settings) -> None:
    with make_app(settings).connection_for_read() as connection:
        channel = connection.channel()
        connection.transport.client = None  # as after a close
        with pytest.raises(connection.connection_errors, match="connection of this channel was closed"):
            channel._connparams()
        connection.transport.client = connection
