"""Encrypted columns for SQLAlchemy 2, Core and ORM: the guide is ``docs/services.md``."""

from byok.integrations.sqlalchemy.leaks import hide_parameters
from byok.integrations.sqlalchemy.rows import row_encrypted
from byok.integrations.sqlalchemy.types import EncryptedBytes, EncryptedJSON, EncryptedString, render_item

__all__ = ["EncryptedBytes", "EncryptedJSON", "EncryptedString", "render_item", "row_encrypted"]

hide_parameters()
