"""Cases for the alerts about processes, records and monitoring."""

from tests.monitoring.rule_cases import PAGE, REACHED, TICKET, Case, Fired

_INTEGRITY = "KMS refused a wrapped key that byok stored, or answered with another. Nobody was suspended."
_NO_WORKER = "Until one does, nothing is rotated, and a revocation is noticed only by services that ask KMS."
_BLIND = "Prometheus gets nothing from any exporter: most other alerts can't fire."
_ORPHAN = "The sweeper rejected pending versions whose rotation had ended. byok leaves none behind."
_UNSCRAPED = "Alerts about KMS errors, integrity and the sweeper can't fire."


def _late(job: str) -> str:
    return (
        f"{job} is late by more than two of its periods, or never began: no Beat ticks, or no worker takes"
        " the queue maintenance."
    )


PROCESS_CASES = (
    Case(
        "ByokIntegrityAlarm",
        "one alarm in one of two processes",
        {
            'byok_integrity_alarms_total{instance="w1"}': "0x10 1x200",
            'byok_integrity_alarms_total{instance="w2"}': "0x200",
        },
        {10: [], 12: [Fired(PAGE, _INTEGRITY)], 100: []},
    ),
    Case(
        "ByokIntegrityAlarm",
        "a process that counted before it was first asked",
        {'byok_integrity_alarms_total{instance="w1"}': "_x10 2x200"},
        {12: [Fired(PAGE, _INTEGRITY)], 100: []},
    ),
    Case(
        "ByokIntegrityAlarm",
        "a probe whose request KMS could make nothing of, and requests that went well",
        {
            'byok_kms_requests_total{operation="Decrypt",outcome="integrity",tenant="acme",instance="w1"}': (
                "_x10 1x200"
            ),
            'byok_kms_requests_total{operation="Decrypt",outcome="ok",tenant="",instance="w1"}': "0+9x200",
        },
        {9: [], 12: [Fired(PAGE, _INTEGRITY)], 100: []},
    ),
    Case(
        "ByokIntegrityAlarm",
        "alarms of long ago, and a process that starts anew",
        {
            'byok_integrity_alarms_total{instance="w1"}': "5x300",
            'byok_integrity_alarms_total{instance="w2"}': "5x100 0x200",
        },
        {120: [], 300: []},
    ),
    Case(
        "ByokAuditChainBroken",
        "one tenant's, as two exporters say",
        {
            'byok_audit_chains_broken{instance="e1"}': "0x5 1x20",
            'byok_audit_chains_broken{instance="e2"}': "0x5 1x20",
        },
        {5: [], 10: [Fired(PAGE, "Tenants whose audit chain does not verify: 1.")]},
    ),
    Case("ByokAuditChainBroken", "none", {"byok_audit_chains_broken": "0x60"}, {60: []}),
    Case(
        "ByokOrphanVersion",
        "the first there ever was",
        {'byok_sweeper_findings_total{finding="orphan-rejected",instance="w1"}': "_x10 1x200"},
        {9: [], 12: [Fired(TICKET, _ORPHAN)], 100: []},
    ),
    Case(
        "ByokOrphanVersion",
        "the sweeper mends other things",
        {'byok_sweeper_findings_total{finding="republished",instance="w1"}': "0+1x100"},
        {100: []},
    ),
    Case(
        "ByokBeatSilent",
        "the sweep is late, the dispatcher is not",
        {
            'byok_tick_age_seconds{beat_job="sweep",instance="e1"}': "10x5 10+60x20 5x20",
            'byok_tick_period_seconds{beat_job="sweep",instance="e1"}': "15x60",
            'byok_tick_age_seconds{beat_job="dispatch-due",instance="e1"}': "20x60",
            'byok_tick_period_seconds{beat_job="dispatch-due",instance="e1"}': "30x60",
        },
        {
            6: [],
            12: [Fired(PAGE, _late("sweep"), {"beat_job": "sweep"})],
            40: [],
        },
    ),
    Case(
        "ByokBeatSilent",
        "a job that never began: infinitely old, or without an age",
        {
            **REACHED,
            'byok_tick_age_seconds{beat_job="sweep",instance="e1"}': "Inf+0x60",
            'byok_tick_period_seconds{beat_job="sweep",instance="e1"}': "15x60",
            'byok_tick_period_seconds{beat_job="probe",instance="e1"}': "5x60",
        },
        {
            5: [Fired(PAGE, _late(job), {"beat_job": job}) for job in ("sweep", "probe")],
        },
    ),
    Case(
        "ByokBeatSilent",
        "PostgreSQL is away: that has an alert of its own",
        {
            'byok_reachable{instance="e1",server="postgresql"}': "0x60",
            'byok_tick_period_seconds{beat_job="sweep",instance="e1"}': "15x60",
        },
        {60: []},
    ),
    Case(
        "ByokNoWorker",
        "the last one leaves, one comes",
        {**REACHED, 'byok_members{kind="worker",instance="e1"}': "2x5 0x10 1x60"},
        {6: [], 12: [Fired(PAGE, _NO_WORKER)], 40: []},
    ),
    Case(
        "ByokNoWorker",
        "there never was one",
        {**REACHED, 'byok_members{kind="service",instance="e1"}': "9x60"},
        {1: [], 30: [Fired(PAGE, _NO_WORKER)]},
    ),
    Case(
        "ByokNoWorker",
        "PostgreSQL is away: nothing is known about workers",
        {'byok_reachable{instance="e1",server="postgresql"}': "0x60"},
        {60: []},
    ),
    Case(
        "ByokQueueDeep",
        "2,000 for an hour",
        {
            'byok_queue_depth{queue="validate",instance="e1"}': "2000x60 0x60",
            'byok_queue_depth{queue="rotate.forced",instance="e1"}': "3x120",
        },
        {
            10: [],
            30: [Fired(TICKET, "2000 messages wait in validate.", {"queue": "validate"})],
            80: [],
        },
    ),
    Case(
        "ByokQueueDeep",
        "5,000 that are worked off within ten minutes",
        {'byok_queue_depth{queue="rotate.scheduled",instance="e1"}': "0x5 5000-500x10 0x60"},
        {12: [], 60: []},
    ),
    Case(
        "ByokSweeperBusy",
        "ten a minute for hours",
        {'byok_sweeper_findings_total{finding="republished",instance="w1"}': "0+10x180 1800x60"},
        {
            30: [],
            120: [
                Fired(
                    TICKET,
                    "It set 150 rotations going again within a quarter of an hour, and has done so"
                    " for an hour.",
                )
            ],
            240: [],
        },
    ),
    Case(
        "ByokSweeperBusy",
        "what a deploy left behind",
        {'byok_sweeper_findings_total{finding="republished",instance="w1"}': "0x10 5+50x3 200x200"},
        {20: [], 100: [], 200: []},
    ),
    Case(
        "ByokServerUnreachable",
        "the broker for one exporter of two",
        {
            'byok_reachable{server="broker",instance="e1"}': "1x5 0x10 1x30",
            'byok_reachable{server="broker",instance="e2"}': "1x60",
        },
        {
            5.5: [],
            8: [
                Fired(
                    PAGE,
                    "The exporter at e1 does not reach broker.",
                    {"server": "broker", "instance": "e1"},
                )
            ],
            40: [],
        },
    ),
    Case(
        "ByokServerUnreachable",
        "the cache",
        {
            'byok_reachable{server="cache",instance="e1"}': "1x5 0x10 1x30",
            'byok_reachable{server="postgresql",instance="e1"}': "1x60",
        },
        {
            8: [],
            14: [
                Fired(
                    TICKET,
                    "The exporter at e1 does not reach it. Processes ask KMS instead.",
                    {"server": "cache", "instance": "e1"},
                )
            ],
            40: [],
        },
    ),
    Case(
        "ByokServerUnreachable",
        "a restart of less than a minute",
        {'byok_reachable{server="broker",instance="e1"}': "1x5 0 1x30"},
        {6: [], 6.5: [], 7: []},
    ),
    Case(
        "ByokWatchStale",
        "three days",
        {'byok_oldest_watch_seconds{instance="e1"}': "259200x120"},
        {30: [], 90: [Fired(TICKET, "The nightly watch has not come to some tenant for 3d 0h 0m 0s.")]},
    ),
    Case("ByokWatchStale", "a day", {"byok_oldest_watch_seconds": "86400x120"}, {120: []}),
    Case(
        "ByokWebhooksGivenUp",
        "two exporters tell of two, for a day",
        {
            'byok_webhooks_given_up{instance="e1"}': "0x5 2x10 0x30",
            'byok_webhooks_given_up{instance="e2"}': "0x5 2x10 0x30",
        },
        {
            4: [],
            10: [Fired(TICKET, "Messages to customers' endpoints that were given up within 24 hours: 2.")],
            25: [],
        },
    ),
    Case(
        "ByokExporterDown",
        "it dies, and comes back",
        {'byok_reachable{server="postgresql",instance="e1"}': "1x5 stale _x20 1x30"},
        {7: [], 20: [Fired(PAGE, _BLIND)], 40: []},
    ),
    Case("ByokExporterDown", "there never was one", {}, {5: [Fired(PAGE, _BLIND)]}),
    Case(
        "ByokTargetDown",
        "one worker of two, and a process that is not byok's",
        {
            'up{job="byok-workers",instance="w1"}': "1x5 0x30",
            'up{job="byok-workers",instance="w2"}': "1x60",
            'up{job="node",instance="n1"}': "0x60",
        },
        {
            8: [],
            20: [
                Fired(
                    TICKET,
                    "Prometheus gets nothing from w1 (byok-workers).",
                    {"job": "byok-workers", "instance": "w1"},
                )
            ],
        },
    ),
    Case(
        "ByokTargetDown",
        "a restart",
        {'up{job="byok-exporter",instance="e1"}': "1x5 0x2 1x30"},
        {7: [], 12: []},
    ),
    Case(
        "ByokWorkersNotScraped",
        "two workers, no page",
        {'byok_members{kind="worker",instance="e1"}': "2x60"},
        {5: [], 20: [Fired(TICKET, _UNSCRAPED)]},
    ),
    Case(
        "ByokWorkersNotScraped",
        "two workers, one page at least",
        {
            'byok_members{kind="worker",instance="e1"}': "2x60",
            'byok_integrity_alarms_total{instance="w1"}': "0x60",
        },
        {60: []},
    ),
    Case("ByokWorkersNotScraped", "no worker", {'byok_members{kind="worker"}': "0x60"}, {60: []}),
)  # fmt: skip
