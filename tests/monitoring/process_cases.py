"""Cases for the alerts about processes, records and monitoring."""

from tests.monitoring.rule_cases import PAGE, REACHED, TICKET, Case, Fired

_INTEGRITY = "KMS refused a wrapped key that byok stored, or answered with another. Nobody was suspended."
_REFUSED = (
    'byok_kms_requests_total{operation="Decrypt",outcome="integrity",tenant="acme",job="byok-workers",'
    'instance="w1"}'
)
_NO_WORKER = "Until one does, nothing is rotated, and a revocation is noticed only by services that ask KMS."
_BLIND = "Prometheus gets nothing from any exporter: most other alerts can't fire."
_ORPHAN = "The sweeper rejected pending versions whose rotation had ended. byok leaves none behind."
_UNSCRAPED = "Alerts about KMS errors, integrity and the sweeper can't fire."


def _late(job: str) -> str:
    return (
        f"{job} has missed a whole period and more, or never began: no Beat ticks, or no worker takes the"
        " queue maintenance."
    )


def _stale(how_long: str) -> str:
    return f"The watch has not come to some tenant for {how_long}, which is more than two of its periods."


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
        "Prometheus starts, and a process counted of old",
        {
            'up{job="byok-workers",instance="w1"}': "1x200",
            'byok_integrity_alarms_total{job="byok-workers",instance="w1"}': "3x200",
            _REFUSED: "3x200",
        },
        {1: [], 12: [], 100: []},
    ),
    Case(
        "ByokIntegrityAlarm",
        "nobody is asked for ten minutes, then with nothing new",
        {
            'up{job="byok-workers",instance="w1"}': "1x100 _x10 1x200",
            'byok_integrity_alarms_total{job="byok-workers",instance="w1"}': "3x100 _x10 3x200",
            _REFUSED: "3x100 _x10 3x200",
        },
        {minute: [] for minute in (90, 111, 115, 163, 168, 172, 250)},
    ),
    Case(
        "ByokIntegrityAlarm",
        "a process does not answer for ten minutes, then with nothing new",
        {
            'up{job="byok-workers",instance="w1"}': "1x100 0x10 1x200",
            _REFUSED: "3x100 stale _x9 3x200",
        },
        {minute: [] for minute in (90, 111, 115, 163, 168, 172, 250)},
    ),
    Case(
        "ByokIntegrityAlarm",
        "a process that starts anew at its old address, and soon meets the same",
        {
            'up{job="byok-workers",instance="w1"}': "1x100 0x2 1x200",
            _REFUSED: "3x100 stale _x9 1x200",
        },
        {90: [], 112: [Fired(PAGE, _INTEGRITY)], 250: []},
    ),
    Case(
        "ByokIntegrityAlarm",
        "a probe whose request KMS could make nothing of, and requests that went well",
        {
            'up{job="byok-workers",instance="w1"}': "1x200",
            'up{job="byok-workers",instance="w2"}': "1x200",
            _REFUSED: "_x10 1x200",
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
        "the first of a process, and one of long ago that Prometheus hears of now",
        {
            'byok_sweeper_findings_total{finding="orphan-rejected",instance="w1"}': "0x10 1x200",
            'byok_sweeper_findings_total{finding="orphan-rejected",instance="w2"}': "_x120 1x100",
        },
        {9: [], 12: [Fired(TICKET, _ORPHAN)], 100: [], 125: []},
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
        "a little late for long; more, but for a minute",
        {
            'byok_tick_age_seconds{beat_job="sweep",instance="e1"}': "46x60",
            'byok_tick_period_seconds{beat_job="sweep",instance="e1"}': "15x60",
            'byok_tick_age_seconds{beat_job="probe",instance="e1"}': "5x30 65x1 5x30",
            'byok_tick_period_seconds{beat_job="probe",instance="e1"}': "5x60",
            'byok_tick_age_seconds{beat_job="dispatch-due",instance="e1"}': "75x60",
            'byok_tick_period_seconds{beat_job="dispatch-due",instance="e1"}': "30x60",
        },
        {
            1.5: [],
            3: [Fired(PAGE, _late("sweep"), {"beat_job": "sweep"})],
            32: [Fired(PAGE, _late("sweep"), {"beat_job": "sweep"})],
            34: [Fired(PAGE, _late("sweep"), {"beat_job": "sweep"})],
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
        "three days of a daily watch, as two exporters say",
        {
            'byok_oldest_watch_seconds{instance="e1"}': "259200x120",
            'byok_watch_period_seconds{instance="e1"}': "86400x120",
            'byok_oldest_watch_seconds{instance="e2"}': "259200x120",
            'byok_watch_period_seconds{instance="e2"}': "86400x120",
        },
        {30: [], 90: [Fired(TICKET, _stale("3d 0h 0m 0s"))]},
    ),
    Case(
        "ByokWatchStale",
        "half a day of an hourly watch",
        {"byok_oldest_watch_seconds": "43200x120", "byok_watch_period_seconds": "3600x120"},
        {30: [], 90: [Fired(TICKET, _stale("12h 0m 0s"))]},
    ),
    Case(
        "ByokWatchStale",
        "a day of a daily watch",
        {"byok_oldest_watch_seconds": "86400x120", "byok_watch_period_seconds": "86400x120"},
        {120: []},
    ),
    Case(
        "ByokWatchStale",
        "six days of a weekly watch",
        {"byok_oldest_watch_seconds": "518400x120", "byok_watch_period_seconds": "604800x120"},
        {120: []},
    ),
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
