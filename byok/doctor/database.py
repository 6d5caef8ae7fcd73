"""PostgreSQL: schema, rights, version, time-outs, clock."""

from collections.abc import Iterator

from byok.doctor import clocks
from byok.doctor.result import Result, failed, passed, warning
from byok.ports import DatabaseFacts
from byok.store import migrate, server
from byok.wiring import Runtime

# What the tests run on goes back to 16; what is older than 14 gets no fixes from its makers any more.
_OLDEST_MAJOR = 14


def check_database(runtime: Runtime) -> Iterator[Result]:
    """Ask the server; raises StoreUnavailable."""
    current = migrate.current_revision(runtime.engine)
    before = clocks.wall_clock()
    facts = server.read_facts(runtime.engine)
    middle = before + (clocks.wall_clock() - before) / 2
    yield _version(facts)
    yield _schema(current, migrate.head_revision())
    yield _rights(facts)
    yield _timeouts(facts)
    yield clocks.judge("clock-postgresql", "PostgreSQL", middle - facts.now)


def _version(facts: DatabaseFacts) -> Result:
    seen = f"PostgreSQL {facts.major}{', over TLS' if facts.is_encrypted else ''}"
    if facts.major < _OLDEST_MAJOR:
        return warning("postgresql", seen, "upgrade it: it gets no security fixes any more")
    return passed("postgresql", seen)


def _schema(current: str | None, head: str) -> Result:
    if current == head:
        return passed("schema", f"at {head}")
    found = "is empty" if current is None else f"is at {current}"
    if current is not None and current > head:
        return failed("schema", f"the schema {found}, this code knows {head}", "deploy the newer code here")
    return failed("schema", f"the schema {found}, this code needs {head}", "run: byok db upgrade")


def _rights(facts: DatabaseFacts) -> Result:
    if facts.missing_rights:
        return failed(
            "rights",
            f"we have no {', '.join(facts.missing_rights)}",
            "GRANT them to the user of BYOK_DATABASE_URL",
        )
    if facts.missing_tables:
        return failed(
            "rights",
            f"can't be told: there is no table {', '.join(facts.missing_tables)}",
            "run: byok db upgrade",
        )
    return passed("rights", "all that are needed on our tables")


def _timeouts(facts: DatabaseFacts) -> Result:
    endless = [name for name, seconds in facts.timeouts.items() if seconds == 0]
    if endless:
        return warning(
            "time-outs",
            f"not in force: {', '.join(endless)}",
            "a pooler drops them: set them on the role, docs/deployment.md",
        )
    return passed("time-outs", ", ".join(f"{seconds:g} s" for seconds in facts.timeouts.values()))
