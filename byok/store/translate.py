"""Driver errors into byok's errors: by the name of the constraint, or by the kind of failure."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from byok.errors import (
    ByokError,
    DuplicateKey,
    DuplicateTarget,
    DuplicateTenant,
    KmsKeyTaken,
    LostRace,
    MoveOpen,
    RoleTaken,
    StoreBusy,
    StoreUnavailable,
    ValidationFailed,
)

# lock_not_available, deadlock_detected, query_canceled (by the time limit)
_BUSY = frozenset({"55P03", "40P01", "57014"})
# What is wrong with the schema, and what to do.
_OF_THE_SCHEMA = {
    "42P01": ("the database has no byok tables", "run: byok db upgrade"),  # undefined_table
    "42703": ("the database's schema is older than this code", "run: byok db upgrade"),  # undefined_column
    "42501": ("PostgreSQL does not let us do that", "byok doctor names the rights that are missing"),
}
_REBUILD = "byok key index TENANT KEY shows which versions: those must decrypt"
_KMS_KEY_TAKEN = KmsKeyTaken(
    "another tenant registered this KMS key",
    remedy="each tenant needs a KMS key of its own; if one customer has two tenants, say --shared",
)
_ROLE_TAKEN = RoleTaken(
    "another tenant registered this role",
    remedy="each tenant needs a role of its own; if one customer has two tenants, say --shared",
)
_BY_CONSTRAINT: dict[str, ByokError] = {
    "uq_tenants_name": DuplicateTenant("a tenant of this name exists", remedy="choose another name"),
    "uq_tenants_kms_key_arn": _KMS_KEY_TAKEN,
    "uq_tenants_role_arn": _ROLE_TAKEN,
    "uq_kms_key_moves_kms_key_arn": _KMS_KEY_TAKEN,
    "uq_kms_key_moves_role_arn": _ROLE_TAKEN,
    "uq_kms_key_moves_open": MoveOpen(
        "the tenant is on its way to another KMS key already",
        remedy="byok tenant migrate TENANT --status shows it; --rollback gives it up",
    ),
    "uq_keys_tenant_id_name": DuplicateKey("the tenant has a key of this name", remedy="choose another name"),
    "uq_reencryption_targets_table": DuplicateTarget(
        "the key has this table as a target already", remedy="byok reencrypt targets shows it"
    ),
    "uq_offboardings_tenant_id": LostRace("the tenant leaves already"),
    "pk_key_versions": LostRace("a version of this number exists"),
    "fk_key_versions_previous": LostRace("the version before this one is not settled"),
    "fk_keys_index_version": LostRace("a blind index rests on this version", remedy=_REBUILD),
    "fk_keys_other_index_version": LostRace("a blind index rests on this version", remedy=_REBUILD),
    "uq_key_versions_pending": LostRace("the key has a pending version"),
    "uq_key_versions_active": LostRace("the key has an active version"),
    "uq_key_versions_rotation_id": LostRace("the rotation has a version"),
    "uq_key_versions_key_id_fingerprint": ValidationFailed(
        "the secret is that of an earlier version of this key",
        remedy="KMS gave the same data key twice: tell whoever looks after the customer's KMS key",
    ),
}


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise byok's errors for what SQLAlchemy raises inside the block."""
    try:
        yield
    except exc.IntegrityError as error:
        raise _for_constraint(error) from error
    except exc.InternalError as error:
        if not takes_no_writes(error.orig):
            raise
        raise StoreUnavailable(
            "PostgreSQL takes no writes now",
            remedy="after a failover this ends by itself; otherwise BYOK_DATABASE_URL names a standby",
        ) from None
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        if getattr(getattr(error, "orig", None), "sqlstate", None) in _BUSY:
            raise StoreBusy(
                f"PostgreSQL gave up a statement ({type(error.__cause__).__name__})",
                remedy="byok tries again; if it stays so, pg_stat_activity says what holds locks",
            ) from None
        # from None: the driver's message may hold the connection's address and user
        raise _unavailable(error) from None
    except exc.ProgrammingError as error:
        known = _OF_THE_SCHEMA.get(getattr(error.orig, "sqlstate", ""))
        if known is None:
            raise
        raise StoreUnavailable(known[0], remedy=known[1]) from error
    except exc.DBAPIError as error:
        if error.connection_invalidated:  # the server went away in the middle of something
            raise _unavailable(error) from None
        raise


def takes_no_writes(error: object) -> bool:
    """Whether the server is a standby now, or was told to take no writes."""
    return getattr(error, "sqlstate", None) == "25006"  # read_only_sql_transaction


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"PostgreSQL does not answer ({type(error.__cause__ or error).__name__})",
        remedy="check that the server runs and BYOK_DATABASE_URL names it",
    )


def _for_constraint(error: exc.IntegrityError) -> Exception:
    diagnostics = getattr(error.orig, "diag", None)
    name = getattr(diagnostics, "constraint_name", None)
    return error_of(name) if name in _BY_CONSTRAINT else error


def error_of(constraint: str) -> ByokError:
    """What byok raises where a constraint is broken; for a rule that one index alone can't tell."""
    known = _BY_CONSTRAINT[constraint]
    return type(known)(known.message, remedy=known.remedy)
