"""What no file may hold, and what every module must."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Written in pieces, so that this file does not hold what it looks for.
FORBIDDEN = [
    "py" + "pi.org",
    "python" + "hosted",
    "/simple" + "/",
    "/ro" + "ot/",
    "/wo" + "rk/",
]


def project_files() -> list[Path]:
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def modules() -> list[Path]:
    return [path for folder in ("byok", "workers") for path in (ROOT / folder).rglob("*.py")]


def test_no_file_names_a_package_index_or_a_private_path() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {needle}"
        for path in project_files()
        if path.suffix not in {".png"}
        for needle in FORBIDDEN
        if needle in path.read_text(errors="replace")
    ]
    assert found == []


def test_constraints_hold_names_versions_and_markers_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.+-]+( ; [\w .<>='!()-]+)?", line), line


def test_the_lock_holds_names_versions_markers_and_hashes_only() -> None:
    pattern = r"([a-z0-9.\[\],-]+==[\w.+-]+( ; [\w .<>='!()-]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?)"
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(pattern, line), line


def test_the_lock_and_the_constraints_agree() -> None:
    pinned = dict(
        line.split(" ")[0].split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
    locked = re.findall(r"^([a-z0-9.-]+)(?:\[[^]]*])?==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert locked
    assert all(pinned[name] == version for name, version in locked)


# Declarations one after another, which are looked up and not read: apart they would be harder to find.
CATALOGUES = {"byok/errors.py"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_are_for_and_stay_small(path: Path) -> None:
    text = path.read_text()
    if not text:
        return
    assert ast.get_docstring(ast.parse(text)), "a module says in its docstring what it is for"
    if "migrations" not in path.parts:
        assert len(text.splitlines()) <= (500 if str(path.relative_to(ROOT)) in CATALOGUES else 420)


def test_every_lint_exception_has_a_reason() -> None:
    bare = re.compile(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[^]]*])\s*$")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in modules()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if bare.search(line)
    ]
    assert found == []


_ALLOWED = {
    "countdown=countdown_seconds,",
    # Beat's own publishing, watched.
    "def apply_async(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # Celery's signature",
    "sent = super().apply_async(*arguments, **named)",
}


def test_nothing_is_scheduled_in_the_broker() -> None:
    """Retries live in PostgreSQL: a message with an ETA could outlive its visibility timeout.

    The one countdown, which paces campaigns, is cut short in byok/queue.py (ADR 18).
    """
    banned = re.compile(r"\bcountdown\s*=|\beta\s*=|\bself\.retry\(|autoretry_for|apply_async\(")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("byok", "workers")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in path.read_text().splitlines()
        if banned.search(line) and line.strip() not in _ALLOWED
    ]
    assert found == []


def test_no_constant_is_assigned_twice() -> None:
    """A merge can leave one behind, and the first is silently lost."""
    for path in modules():
        names = [
            target.id
            for statement in ast.parse(path.read_text()).body
            if isinstance(statement, ast.Assign | ast.AnnAssign)
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
            if isinstance(target, ast.Name)
        ]
        assert len(names) == len(set(names)), path
