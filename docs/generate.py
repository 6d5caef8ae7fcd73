"""Writes docs/settings.md and docs/cli.md from the code: ``python docs/generate.py``."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from byok.cli.main import app
from byok.settings import Settings, StackSettings

DOCS = Path(__file__).parent


def settings_page() -> str:
    """Every setting: variable, default, meaning."""
    lines = [
        "# Settings",
        "",
        "All from environment variables, read once at the start. An empty variable counts as unset. A wrong",
        "value stops the start with one line that names the variable and never its value.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
        *_rows(Settings),
        *_rows(StackSettings),
        "",
        "The workers' AWS identity comes from where boto3 finds it: the role of the machine, or `AWS_*`.",
        "Flower's password is `FLOWER_BASIC_AUTH=USER:PASSWORD`.",
        "",
        "*Written by `docs/generate.py`.*",
    ]
    return "\n".join(lines) + "\n"


def _rows(model: type[Settings | StackSettings]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"| `BYOK_{name.upper()}` | {_default(field)} | {field.description} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required" + (", secret" if field.annotation is SecretStr else "")
    return "–" if field.default is None else f"`{field.default}`"


def cli_page() -> str:
    """Every command with its help."""
    lines = ["# Command line", "", "Exit codes: 0 done, 2 wrong input, 3 not found, 4 conflict, 5 access is"]
    lines += [
        "stopped, 6 something can't be reached, 7 integrity, 8 validation failed, 9 AWS refuses for good,"
    ]
    lines += [
        "10 gave up, or a campaign failed,",
        "78 a setting is wrong, 130 interrupted. An error is one line: what is wrong, its stable code in",
    ]
    lines += ["brackets, and what to do; with `--json` the same as an object on standard error.", ""]
    command = typer.main.get_command(app)
    lines += _commands(command, "byok")
    lines += ["*Written by `docs/generate.py`.*"]
    return "\n".join(lines) + "\n"


def _commands(command: click.Command, name: str) -> Iterator[str]:
    children: dict[str, click.Command] = getattr(command, "commands", {})
    for child_name, child in sorted(children.items()):
        if getattr(child, "commands", None):
            yield from _commands(child, f"{name} {child_name}")
        else:
            yield from _command(child, f"{name} {child_name}")


def _command(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    yield f"## `{' '.join([name, *usage])}`".replace("{", "").replace("}", "")
    yield ""
    yield _plain(command.help or "")
    yield ""
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    for option in options:
        text = _plain(getattr(option, "help", None) or "")
        default = f" Default: `{option.default}`." if isinstance(option.default, str) else ""
        yield f"- `{', '.join(option.opts)}` {text}{default}"
    if options:
        yield ""
    if command.epilog:
        yield f"{_plain(command.epilog)}"
        yield ""


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("[bold]", "`").replace("[/]", "`")


def main() -> None:
    """Write both pages."""
    for name, page in (("settings.md", settings_page()), ("cli.md", cli_page())):
        (DOCS / name).write_text(page)
        sys.stdout.write(f"wrote docs/{name}\n")


if __name__ == "__main__":
    main()
