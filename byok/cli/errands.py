"""What ``byok tenant policy --for`` is asked for, and what ``byok key export`` says is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from byok.core.arns import RoleArn
from byok.core.errands import Errand, ErrandKind, export_errand
from byok.core.model import Key, Tenant
from byok.errors import ConfigurationError, InvalidInput, NotReady, UnknownKey

ErrandOption = Annotated[
    ErrandKind | None,
    typer.Option("--for", help="Print instead what this errand needs beside, for as long as it takes."),
]
ErrandKeyOption = Annotated[
    str | None, typer.Option("--key", metavar="NAME", help="With --for export: the key's name.")
]


@dataclass(frozen=True, slots=True)
class ErrandRequest:
    """The options that belong to ``--for``, as they were said."""

    kind: ErrandKind | None
    key: str | None

    def require_sense(self, *, other_options: bool) -> None:
        """Let pass options that belong together; ``other_options``: --kms-key-arn or --mode was said.

        Raises:
            InvalidInput.
        """
        if (self.kind is ErrandKind.EXPORT) is (self.key is None):
            raise InvalidInput("--for export and --key belong together")
        if self.kind is not None and other_options:
            raise InvalidInput(
                "an errand goes over the connection that the tenant has",
                remedy="leave --kms-key-arn and --mode out",
            )

    def errand(self, tenant: Tenant, keys: Sequence[Key], vendor_role: RoleArn | None) -> Errand:
        """What the errand needs.

        Raises:
            NotReady: the tenant has no KMS key yet; UnknownKey; ConfigurationError: the vendor's
                role is needed and not set.
        """
        source = tenant.connection
        if source is None:
            raise NotReady(
                f"tenant {tenant.name!r} has no KMS key yet", remedy=f"first byok tenant verify {tenant.name}"
            )
        key = next((one for one in keys if one.name == self.key), None)
        if key is None:
            raise UnknownKey(f"tenant {tenant.name!r} has no key {self.key!r}")
        needed = require_vendor_role(vendor_role) if source.role_arn is None else vendor_role
        return export_errand(source, key, needed)


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
