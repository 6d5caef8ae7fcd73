"""Bring Your Own Key encryption: data keys in each customer's own AWS KMS.

::

    from byok import connect

    vault = connect()                                  # BYOK_* settings
    pii = vault.cipher("acme", "pii")
    token = pii.encrypt(b"ada@example.com", context=b"users.email:42")
    pii.decrypt(token, context=b"users.email:42")
"""

from typing import TYPE_CHECKING

from byok import forks as forks  # before anybody else registers what is to run in a forked child

if TYPE_CHECKING:
    from byok.services.async_vault import AsyncVault
    from byok.services.vault import Vault
    from byok.settings import Settings

__all__ = ["__version__", "aconnect", "connect"]
__version__ = "0.1.0"


def connect(settings: "Settings | None" = None) -> "Vault":
    """The door to byok for services: see `byok.services.vault.Vault`.

    Without ``settings`` the ``BYOK_*`` environment decides, and all callers of a process share one.

    Raises:
        byok.errors.ConfigurationError: a setting is missing or wrong.
    """
    # Imported on use: boto3, SQLAlchemy and Celery take half a second that `byok --help` need not pay.
    from byok import wiring

    return wiring.connect(settings)


def aconnect(settings: "Settings | None" = None) -> "AsyncVault":
    """The same for asyncio services: see `byok.services.async_vault.AsyncVault`. Not awaited; connects to
    nothing yet. Imports for half a second the first time: call it before the event loop runs.

    Raises:
        byok.errors.ConfigurationError: a setting is missing or wrong.
    """
    from byok import wiring

    return wiring.aconnect(settings)
