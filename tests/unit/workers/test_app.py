"""The Celery side as data: names, routes, queues, schedule and settings that keep secrets out."""

import inspect

import pytest
from celery import Celery

from byok import queue
from byok.settings import Settings
from workers.app import make_app
from workers.schedule import beat_schedule


@pytest.fixture
def app() -> Celery:
    settings = Settings.model_validate(
        {
            "env": "test",
            "database_url": "postgresql+psycopg://u:p@127.0.0.1:1/d",
            "broker_url": "redis://127.0.0.1:1/0",
            "cache_url": "redis://127.0.0.1:1/0",
            "master_keys": "mk:" + "A" * 43 + "=",
        }
    )
    app = make_app(settings)
    app.loader.import_default_modules()
    return app


TASKS = {
    "byok.keys.generate",
    "byok.keys.rotate",
    "byok.keys.rotate_many",
    "byok.keys.validate",
    "byok.tenants.probe",
    "byok.tenants.sync_rotation",
    "byok.tenants.watch",
    "byok.tenants.move_kms_key",
    "byok.records.reencrypt",
    "byok.records.reseal",
    "byok.schedule.dispatch_due",
    "byok.schedule.sweep",
    "byok.schedule.publish_probes",
    "byok.schedule.publish_validations",
    "byok.schedule.publish_syncs",
    "byok.schedule.publish_watches",
    "byok.schedule.post_webhooks",
}


def test_no_countdown_outlives_its_messages_visibility(app: Celery) -> None:
    visibility_seconds = app.conf.broker_transport_options["visibility_timeout"]
    assert visibility_seconds / 10 >= queue.LONGEST_COUNTDOWN_SECONDS


def test_the_tasks_are_those_that_are_documented_and_each_has_a_queue(app: Celery) -> None:
    ours = {name for name in app.tasks if name.startswith("byok.")}
    assert ours == TASKS
    assert set(app.conf.task_routes) == TASKS
    assert {route["queue"] for route in app.conf.task_routes.values()} <= set(queue.QUEUES)


def test_each_queue_has_an_exchange_and_a_key_of_its_own(app: Celery) -> None:
    queues = app.amqp.queues
    assert list(queue.QUEUES) == ["rotate.forced", "maintenance", "validate", "rotate.scheduled", "reencrypt"]
    for name in queue.QUEUES:
        assert (queues[name].exchange.name, queues[name].routing_key) == (name, name)


def test_only_json_goes_in_and_nothing_is_kept(app: Celery) -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.task_ignore_result
    assert app.conf.result_backend is None


def test_tasks_are_acknowledged_late_and_redelivered_after_a_loss(app: Celery) -> None:
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.broker_transport_options["visibility_timeout"] > app.conf.worker_soft_shutdown_timeout


def test_a_worker_outlives_every_outage_of_its_broker(app: Celery) -> None:
    assert app.conf.broker_connection_max_retries is None
    assert app.conf.broker_connection_retry_on_startup
    assert app.conf.broker_transport_options["health_check_interval"] > 0


def test_beat_asks_at_least_once_a_minute_for_tasks_that_exist_and_ticks_expire(app: Celery) -> None:
    schedule = beat_schedule(app.byok_settings)
    assert {entry["task"] for entry in schedule.values()} <= TASKS
    for entry in schedule.values():
        assert entry["options"]["queue"] == "maintenance"
        assert entry["schedule"] <= 60 <= entry["options"]["expires"] * 2
        assert entry["options"]["expires"] >= entry["schedule"]
        assert "args" not in entry


# The contract of docs/celery.md: what is here stays, and keeps its meaning and its default.
CONTRACT = {
    "byok.keys.generate": "(tenant, key, rotation_id=None, **unknown)",
    "byok.keys.rotate": (
        "(tenant, key, reason='forced', idempotency_key=None, requested_by=None, rotation_id=None, **unknown)"
    ),
    "byok.keys.rotate_many": "(rotation_ids, **unknown)",
    "byok.keys.validate": "(tenant, key, **unknown)",
    "byok.tenants.probe": "(tenant)",
    "byok.schedule.dispatch_due": "()",
    "byok.schedule.sweep": "()",
    "byok.schedule.publish_probes": "()",
    "byok.schedule.publish_validations": "()",
    "byok.schedule.publish_syncs": "()",
    "byok.schedule.publish_watches": "()",
    "byok.schedule.post_webhooks": "()",
    "byok.tenants.sync_rotation": "(tenant, **unknown)",
    "byok.tenants.watch": "(tenant, **unknown)",
    "byok.tenants.move_kms_key": "(move_id, batch=None, **unknown)",
    "byok.records.reencrypt": "(campaign_id, batch=None, **unknown)",
    "byok.records.reseal": "(reseal_id, batch=None, **unknown)",
}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_arguments_are_those_of_the_contract_and_none_of_them_a_secret(app: Celery, name: str) -> None:
    signature = inspect.signature(app.tasks[name].run)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == CONTRACT[name]
