"""``byok encrypt`` and ``byok decrypt``: standard input to standard output, or a file to a file."""

from pathlib import Path
from typing import Annotated

import typer

from byok.cli.files import Peekable, reading, writing
from byok.cli.output import KeyName, TenantName
from byok.cli.services import open_services
from byok.core.segments import STREAM_PREFIX

Context = Annotated[
    str, typer.Option("--context", metavar="TEXT", help="Where the value lives, such as users.email:42.")
]
Input = Annotated[
    Path | None, typer.Option("--input", metavar="FILE", help="Read this file, not standard input.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", metavar="FILE", help="Write this file, whole or not at all, not standard output."
    ),
]


def encrypt(
    tenant: TenantName,
    key: KeyName,
    context: Context,
    stream: Annotated[
        bool, typer.Option("--stream", help="Make a stream: any length, in bounded memory.")
    ] = False,
    input_: Input = None,
    output: Output = None,
) -> None:
    """Encrypt standard input; the token, or stream, goes to standard output as raw bytes."""
    with reading(input_) as source, open_services() as services, writing(output) as sink:
        cipher = services.vault.cipher(tenant, key)
        if stream:
            cipher.encrypt_stream(source, sink, context=context.encode())
        else:
            sink.write(cipher.encrypt(source.read(), context=context.encode()))


def decrypt(
    tenant: TenantName, key: KeyName, context: Context, input_: Input = None, output: Output = None
) -> None:
    """Decrypt a token or a stream from standard input; its first byte tells which it is.

    Of a stream that is cut short or damaged, the part before that is on standard output by the time it
    shows: heed the exit status, or use --output, which leaves no such file.
    """
    with reading(input_) as file, open_services() as services, writing(output) as sink:
        cipher, source = services.vault.cipher(tenant, key), Peekable(file)
        if source.first == bytes([STREAM_PREFIX]):
            cipher.decrypt_stream(source, sink, context=context.encode())
        else:
            sink.write(cipher.decrypt(source.read(), context=context.encode()))
