"""Every command's --help ends with an example that the command line itself would take."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from byok.cli.main import app


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Typer has a click of its own in some versions, and click's in others."""
    children: dict[str, Any] = getattr(command, "commands", {})
    if not children:
        yield name, command
    for child_name, child in children.items():
        yield from commands(child, f"{name} {child_name}")


COMMANDS = dict(commands(typer.main.get_command(app), "byok"))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_has_an_example(name: str) -> None:
    command = COMMANDS[name]
    # Some stand behind a pipe, or within $(…).
    assert re.search(rf"(\[bold\]|\| |\$\(){name}\b", command.epilog or ""), command.epilog


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_options_of_examples_exist(name: str) -> None:
    command = COMMANDS[name]
    known = {option for parameter in command.params for option in parameter.opts}
    for example in (command.epilog or "").split("[bold]")[1:]:
        words = shlex.split(example.partition("[/]")[0].rpartition(" | ")[2].partition(" > ")[0])
        if words[: len(name.split())] == name.split():
            assert {word for word in words if word.startswith("--")} <= known
