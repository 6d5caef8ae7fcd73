"""What ``byok tenant policy --for`` is asked for, and what ``byok key export`` says is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.errands import Errand, ErrandKind, export_errand, migration_errand
from byok.core.model import Connection, Key, Tenant
from byok.errors import ConfigurationError, InvalidInput, NotReady, UnknownKey

ErrandOption = Annotated[
    ErrandKind | None,
    typer.Option("--for", help="Print instead what this errand needs beside, for as long as it takes."),
]
ErrandKeyOption = Annotated[
    str | None, typer.Option("--key", metavar="NAME", help="With --for export: the key's name.")
]
ToKmsKeyOption = Annotated[
    str | None,
    typer.Option("--to-kms-key-arn", metavar="ARN", help="With --for migration: the new KMS key."),
]
ToRoleOption = Annotated[
    str | None,
    typer.Option(
        "--to-role-arn",
        metavar="ARN",
        help="With --for migration: the role for the new KMS key; left out: as before.",
    ),
]


@dataclass(frozen=True, slots=True)
class ErrandRequest:
    """The options that belong to ``--for``, as they were said."""

    kind: ErrandKind | None
    key: str | None
    to_kms_key_arn: str | None
    to_role_arn: str | None

    def require_sense(self, *, other_options: bool) -> None:
        """Let pass options that belong together; ``other_options``: --kms-key-arn or --mode was said.

        Raises:
            InvalidInput.
        """
        is_export, is_migration = self.kind is ErrandKind.EXPORT, self.kind is ErrandKind.MIGRATION
        if is_export is (self.key is None):
            raise InvalidInput("--for export and --key belong together")
        if is_migration is (self.to_kms_key_arn is None) or (self.to_role_arn and not is_migration):
            raise InvalidInput("--for migration and --to-kms-key-arn (and --to-role-arn) belong together")
        if self.kind is not None and other_options:
            raise InvalidInput(
                "an errand goes over the connection that the tenant has",
                remedy="leave --kms-key-arn and --mode out",
            )

    def errand(self, tenant: Tenant, keys: Sequence[Key], vendor_role: RoleArn | None) -> Errand:
        """What the errand needs.

        Raises:
            NotReady: the tenant has no KMS key yet; UnknownKey; InvalidArn; ConfigurationError: the vendor's
                role is needed and not set.
        """
        source = tenant.connection
        if source is None:
            raise NotReady(
                f"tenant {tenant.name!r} has no KMS key yet", remedy=f"first byok tenant verify {tenant.name}"
            )
        if self.to_kms_key_arn is not None:
            target = self._target(source, self.to_kms_key_arn)
            return migration_errand(source, target, _vendor_role_for(target, vendor_role))
        key = next((one for one in keys if one.name == self.key), None)
        if key is None:
            raise UnknownKey(f"tenant {tenant.name!r} has no key {self.key!r}")
        return export_errand(source, key, _vendor_role_for(source, vendor_role))

    def _target(self, source: Connection, kms_key_arn: str) -> Connection:
        role = source.role_arn if self.to_role_arn is None else RoleArn.parse(self.to_role_arn)
        return replace(source, kms_key_arn=KmsKeyArn.parse(kms_key_arn), role_arn=role)


def _vendor_role_for(connection: Connection, vendor_role: RoleArn | None) -> RoleArn | None:
    return require_vendor_role(vendor_role) if connection.role_arn is None else vendor_role


def require_vendor_role(vendor_role: RoleArn | None) -> RoleArn:
    """The workers' role.

    Raises:
        ConfigurationError: it is not set.
    """
    if vendor_role is None:
        raise ConfigurationError(
            "BYOK_VENDOR_ROLE_ARN: is not set",
            remedy="set it to the IAM role that the workers run under: the customer's policy names it",
        )
    return vendor_role
