"""An encrypted text field for Django models: the guide is ``docs/services.md``."""

from typing import Any, Never

from django.db import models

from byok import connect
from byok.errors import InvalidInput, NotComparable
from byok.integrations.values import TEXT, CipherSource, TenantSource, VaultSource


class EncryptedTextField(models.BinaryField):
    """Text, stored as a token in a binary column, NULL for None. Its context is ``table.column``.

    ``tenant`` gives the tenant whose value it is, and is called for each value: read a ContextVar. Without
    a tenant nothing is written or read. ``vault`` is one, or gives one; `byok.connect` by default.
    ``context`` fixes what is ``table.column`` otherwise: needed to keep data readable when either is renamed.
    """

    description = "Text, encrypted under the tenant's own key"

    def __init__(
        self,
        *args: Any,
        key: str,
        tenant: TenantSource,
        vault: VaultSource = connect,
        context: str | None = None,
        **options: Any,
    ) -> None:
        if refused := {"primary_key", "unique", "db_index", "choices", "db_default"} & options.keys():
            raise InvalidInput(f"an encrypted field can't have {', '.join(sorted(refused))}")
        super().__init__(*args, **options)
        self.source = CipherSource(key, tenant, vault)
        self.context = context

    def deconstruct(self) -> Any:
        """What migrations write down."""
        name, path, args, options = super().deconstruct()
        options |= {"key": self.source.key, "tenant": self.source.tenant}
        if self.source.vault is not connect:
            options["vault"] = self.source.vault
        if self.context is not None:
            options["context"] = self.context
        return name, path, args, options

    def get_prep_value(self, value: Any) -> bytes | None:
        """Encrypt, just before the statement runs."""
        return None if value is None else TEXT.seal(self.source, value, self._known_context())

    def from_db_value(self, value: Any, expression: object, connection: object) -> str | None:
        """Decrypt, when the row is read."""
        return None if value is None else TEXT.open(self.source, bytes(value), self._known_context())

    def to_python(self, value: Any) -> Any:
        """The value as it is: only the database has it otherwise."""
        return value

    def value_to_string(self, obj: object) -> Never:
        """Refuse: a dump would hold plaintext."""
        raise InvalidInput(f"{self} is encrypted and is not dumped", remedy="back up the database itself")

    def get_lookup(self, lookup_name: str) -> Any:
        """Refuse every lookup but isnull: two tokens of one value differ."""
        return super().get_lookup(lookup_name) if lookup_name == "isnull" else self._refuse_search()

    def get_transform(self, lookup_name: str) -> Never:
        """Refuse: the database has no value to transform."""
        self._refuse_search()

    def _refuse_search(self) -> Never:
        raise NotComparable(
            f"{self} is encrypted: the database can only tell whether it is NULL",
            remedy="search by a blind index of its own column; see Cipher.blind_index",
        )

    def _check_str_default_value(self) -> list[object]:
        return []  # of a BinaryField, whose values are bytes

    def _known_context(self) -> str:
        return self.context or f"{self.model._meta.db_table}.{self.column}"
