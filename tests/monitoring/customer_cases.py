"""Cases for the alerts about customers, rotations and KMS."""

from tests.monitoring.rule_cases import PAGE, REACHED, TICKET, Case, Fired


def _failed(share: str) -> str:
    return f"{share} of the requests to customers' KMS were throttled or not answered."


def _deleted(days: str, tenant: str = "acme") -> str:
    return f"The KMS key of {tenant} is deleted in {days} days. After that nobody can ever read its data."


def _expires(days: str) -> str:
    return (
        f"The KMS key material of acme expires in {days} days. None of its data can be read from then on,"
        " until it is imported again."
    )


def _waited(how_long: str) -> str:
    return f"The key that has waited longest has been due for {how_long}."


def _decrypts(outcome: str, instance: str = "w1", tenant: str = "acme") -> str:
    labels = f'outcome="{outcome}",tenant="{tenant}",job="byok-workers",instance="{instance}"'
    return f'byok_kms_requests_total{{operation="Decrypt",{labels}}}'


_OK = _decrypts("ok", tenant="")
_OUTAGE = _decrypts("outage")
_THROTTLED = _decrypts("throttled", "w2")
_DENIED = _decrypts("denied")
_ASKED = {f'up{{job="byok-workers",instance="{instance}"}}': "1x800" for instance in ("w1", "w2")}
_COMPROMISED = "A rotation for the reason compromise failed for good: the compromised version encrypts still."
_ACME_DENIED = {"tenant": "acme", "code": "AccessDeniedException"}
_ACME_BY_HAND = {"tenant": "acme", "code": "by-hand"}

CUSTOMER_CASES = (
    Case(
        "ByokTenantSuspended",
        "two exporters name a tenant, a third tenant is fine, then access is back",
        {
            'byok_tenant_suspended{tenant="acme",code="AccessDeniedException",instance="e1"}': "60+60x9 _x20",
            'byok_tenant_suspended{tenant="acme",code="AccessDeniedException",instance="e2"}': "60+60x9 _x20",
        },
        {
            0.5: [],
            5: [
                Fired(
                    PAGE,
                    "acme has been suspended for 6m 0s; AWS says AccessDeniedException. None of its data"
                    " can be read or written.",
                    _ACME_DENIED,
                )
            ],
            25: [],
        },
    ),
    Case(
        "ByokTenantSuspended",
        "stopped by hand: after an hour, as a ticket",
        {'byok_tenant_suspended{tenant="acme",code="by-hand",instance="e1"}': "0+60x100"},
        {
            59: [],
            90: [
                Fired(
                    TICKET,
                    "acme was stopped 1h 30m 0s ago (by-hand). None of its data can be read or written.",
                    _ACME_BY_HAND,
                )
            ],
        },
    ),
    Case(
        "ByokTenantSuspended",
        "a drill, and no tenant suspended at all",
        {'byok_tenant_suspended{tenant="acme",code="drill",instance="e1"}': "0+60x5"},
        {5: [], 30: []},
    ),
    Case(
        "ByokTenantsSuspended",
        "a few, then more than the exporter names, as two of them say, then none",
        {
            'byok_tenants{state="suspended",instance="e1"}': "3x10 5000x20 0x30",
            'byok_tenants{state="suspended",instance="e2"}': "3x10 5000x20 0x30",
            'byok_tenants{state="active",instance="e1"}': "9000x60",
        },
        {
            9: [],
            15: [
                Fired(
                    PAGE,
                    "5000 tenants are suspended. Rather than all of these customers, something of ours may"
                    " have changed.",
                )
            ],
            45: [],
        },
    ),
    Case(
        "ByokTenantsSuspended",
        "ten",
        {'byok_tenants{state="suspended",instance="e1"}': "10x60"},
        {60: []},
    ),
    Case(
        "ByokKmsKeyDeletion",
        "a week away, then two days, then cancelled; two exporters",
        {
            'byok_kms_key_deletion_days{tenant="acme",instance="e1"}': "7x5 2x5 _x20",
            'byok_kms_key_deletion_days{tenant="acme",instance="e2"}': "7x5 2x5 _x20",
            'byok_kms_key_deletion_days{tenant="zeta",instance="e1"}': "_x25",
        },
        {
            3: [Fired(TICKET, _deleted("7.0"), {"tenant": "acme"})],
            11.5: [Fired(PAGE, _deleted("2.0"), {"tenant": "acme"})],
            30: [],
        },
    ),
    Case("ByokKmsKeyDeletion", "no key is to be deleted", REACHED, {60: []}),
    Case(
        "ByokKeyMaterialExpiry",
        "a month away, then 12 hours",
        {'byok_key_material_expiry_days{tenant="acme",instance="e1"}': "30x5 0.5x30"},
        {
            3: [Fired(TICKET, _expires("30.0"), {"tenant": "acme"})],
            30: [Fired(PAGE, _expires("0.5"), {"tenant": "acme"})],
        },
    ),
    Case(
        "ByokKeyMaterialExpiry",
        "not before next year",
        {'byok_key_material_expiry_days{tenant="acme",instance="e1"}': "300x60"},
        {60: []},
    ),
    Case(
        "ByokDriftFound",
        "a finding, seen by two exporters, that is put right",
        {
            'byok_findings{kind="excess-rights",severity="warning",instance="e1"}': "2x10 0x30",
            'byok_findings{kind="excess-rights",severity="urgent",instance="e1"}': "1x10 0x30",
            'byok_findings{kind="excess-rights",severity="warning",instance="e2"}': "2x10 0x30",
        },
        {
            5: [Fired(TICKET, "Findings of the kind excess-rights: 3.", {"kind": "excess-rights"})],
            30: [],
        },
    ),
    Case(
        "ByokDriftFound",
        "what has an alert of its own, and what nobody has to do anything about",
        {
            'byok_findings{kind="kms-key-pending-deletion",severity="urgent"}': "1x30",
            'byok_findings{kind="key-material-expiring",severity="warning"}': "1x30",
            'byok_findings{kind="kms-key-rotation-off",severity="note"}': "7x30",
            'byok_findings{kind="excess-rights",severity="warning"}': "0x30",
        },
        {30: []},
    ),
    Case(
        "ByokRevocationSlow",
        "a stop becomes slow, and is the slowest of 90 days from then on",
        {
            'byok_stop_bound_seconds{instance="e1"}': "7x200",
            'byok_worst_revocation_seconds{tenant="acme",instance="e1"}': "2x6 9x200",
            'byok_worst_revocation_seconds{tenant="zeta",instance="e1"}': "6x200",
        },
        {
            60: [],
            80: [
                Fired(
                    PAGE,
                    "It took 9s until no process served acme any more, or takes that long already.",
                    {"tenant": "acme"},
                )
            ],
            500: [],
            1900: [],
        },
        step_minutes=10,
    ),
    Case(
        "ByokRotationOverdue",
        "two hours, then two days, then none",
        {
            'byok_oldest_overdue_seconds{instance="e1"}': "0x5 7200x60 172800x60 0x60",
            'byok_oldest_overdue_seconds{instance="e2"}': "0x5 7200x60 172800x60 0x60",
        },
        {
            12: [],
            40: [Fired(TICKET, _waited("2h 0m 0s"))],
            100: [Fired(PAGE, _waited("2d 0h 0m 0s"))],
            180: [],
        },
    ),
    Case(
        "ByokRotationOverdue",
        "a batch of keys that waits its turn",
        {'byok_oldest_overdue_seconds{instance="e1"}': "0+60x50 0x50"},
        {50: [], 90: []},
    ),
    Case(
        "ByokRotationFailed",
        "failed; open again while the schedule tries it; failed; done",
        {'byok_rotations_failed{instance="e1"}': "0x5 1x54 0x15 1x10 0x60"},
        {
            5: [],
            10: [
                Fired(
                    TICKET,
                    "Keys whose latest rotation failed for good: 1. They go on with their old version.",
                )
            ],
            70: [
                Fired(
                    TICKET,
                    "Keys whose latest rotation failed for good: 1. They go on with their old version.",
                )
            ],
            140: [],
        },
    ),
    Case(
        "ByokRotationFailed",
        "of a compromised key, counted by a worker that is then replaced",
        {
            'byok_rotations_total{reason="compromise",state="failed",instance="w1"}': "0x10 1x5 _x200",
            'byok_rotations_total{reason="compromise",state="failed",instance="w2"}': "0x200",
            'byok_rotations_total{reason="forced",state="failed",instance="w2"}': "0+1x200",
        },
        {9: [], 14: [Fired(PAGE, _COMPROMISED)], 150: []},
    ),
    Case(
        "ByokRotationFailed",
        "workers that start and stop, and what failed is done since",
        {
            'byok_rotations_failed{instance="e1"}': "0x100",
            'byok_rotations_total{reason="compromise",state="failed",instance="w1"}': "3x40 0x60",
        },
        {3: [], 90: []},
    ),
    Case(
        "ByokRotationStuck",
        "open for hours, then at its end",
        {'byok_oldest_rotation_seconds{instance="e1"}': "0+60x120 0x60"},
        {
            50: [],
            110: [
                Fired(
                    TICKET,
                    "The oldest open rotation was asked for 1h 50m 0s ago. Eight attempts take a quarter of"
                    " an hour.",
                )
            ],
            150: [],
        },
    ),
    Case(
        "ByokRotationStuck",
        "one that is retried for 20 minutes",
        {'byok_oldest_rotation_seconds{instance="e1"}': "0+60x20 0x40"},
        {20: [], 60: []},
    ),
    Case(
        "ByokKmsErrorBudget",
        "a quarter fails from the first hour on",
        {**_ASKED, _OK: "0+60x60 3645+45x60", _OUTAGE: "_x60 1+10x60", _THROTTLED: "_x60 1+5x60"},
        {60: [], 110: [Fired(PAGE, _failed("20.88%"))]},
    ),
    Case(
        "ByokKmsErrorBudget",
        "two in a hundred fail for three days",
        {**_ASKED, _OK: "0+98x800", _OUTAGE: "0+2x800"},
        {3600: [Fired(TICKET, _failed("2%"))]},
        step_minutes=10,
    ),
    Case(
        "ByokKmsErrorBudget",
        "five minutes of outage, customers who refuse, one in a thousand fails",
        {
            **_ASKED,
            _OK: "0+60x100 6000+0x5 6060+60x100",
            _OUTAGE: "0+0x100 6+6x5 36+0x100",
            _DENIED: "0+600x200",
            _THROTTLED: "0+0.06x200",
        },
        {90: [], 107: [], 180: []},
    ),
    Case(
        "ByokKmsErrorBudget",
        "a fleet that asks for little, and one customer's eight attempts at a rotation",
        {
            **_ASKED,
            _OK: "0+0x100 2x200",
            _THROTTLED: "_x100 1+1x7 8x200",
        },
        {minute: [] for minute in (104, 108, 112, 170)},
    ),
    Case(
        "ByokKmsErrorBudget",
        "Prometheus starts after an outage, and asks nobody for a while later",
        {
            **dict.fromkeys(_ASKED, "1x100 _x10 1x200"),
            _OK: "900+1x100 _x10 1010+1x200",
            _OUTAGE: "900x100 _x10 900x200",
        },
        {minute: [] for minute in (3, 6, 70, 112, 120, 165, 170, 250)},
    ),
)  # fmt: skip
