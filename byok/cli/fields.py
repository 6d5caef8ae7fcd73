"""``byok encrypt`` and ``byok decrypt``: standard input to standard output."""

import sys
from typing import Annotated

import typer

from byok.cli.output import TenantName
from byok.cli.services import open_services

Key = Annotated[str, typer.Argument(metavar="KEY", help="The key's name.")]
Context = Annotated[
    str, typer.Option("--context", metavar="TEXT", help="Where the value lives, such as users.email:42.")
]


def encrypt(tenant: TenantName, key: Key, context: Context) -> None:
    """Encrypt standard input; the token goes to standard output as raw bytes.

    Example: [bold]printf ada@example.com | byok encrypt acme pii --context users.email:42 > token[/]
    """
    plaintext = sys.stdin.buffer.read()
    with open_services() as services:
        token = services.vault.cipher(tenant, key).encrypt(plaintext, context=context.encode())
    sys.stdout.buffer.write(token)


def decrypt(tenant: TenantName, key: Key, context: Context) -> None:
    """Decrypt a token from standard input.

    Example: [bold]byok decrypt acme pii --context users.email:42 < token[/]
    """
    token = sys.stdin.buffer.read()
    with open_services() as services:
        plaintext = services.vault.cipher(tenant, key).decrypt(token, context=context.encode())
    sys.stdout.buffer.write(plaintext)
