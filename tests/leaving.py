"""What tests of leaving do over and over: let the day come, read the certificate, look for wrapped keys."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from byok.crypto.reports import PURPOSE, verify_report
from byok.wiring import Runtime

_LATER = """
UPDATE stops SET noticed_at = noticed_at - interval '40 d', committed_at = committed_at - interval '40 d';
UPDATE offboardings SET requested_at = requested_at - interval '40 d', shred_after = now() - interval '9 d'
"""


def let_the_day_come(engine: sa.Engine) -> None:
    """As if the retention had passed, and the longest lease: everything happened 40 days earlier."""
    with engine.begin() as connection:
        connection.execute(sa.text(_LATER))


def certificate(runtime: Runtime, tenant: str) -> Mapping[str, Any]:
    """What the stored certificate says, verified."""
    signed = runtime.services.offboardings.show(tenant).offboarding.certificate
    assert signed is not None
    return verify_report(signed, runtime.master_keys.signing_keys(PURPOSE).values())


def wrapped_keys(engine: sa.Engine) -> int:
    """How many versions have a wrapped key, or a part of its record."""
    parts = "num_nonnulls(encrypted_key, iv, master_key_id)"
    held = sa.text(f"SELECT count(*) FROM key_versions WHERE {parts} > 0")
    with engine.connect() as connection:
        return int(connection.execute(held).scalar_one())
