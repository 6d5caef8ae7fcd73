"""What Celery logs, made fit for byok's lines: ids as fields, no arguments of tasks, no bodies of messages.

Both may hold anything: whoever can reach the broker sends them.
"""

import logging

from celery.worker.consumer import consumer

from byok.logs.redaction import describe_error

_OF_TASKS = ("celery.app.trace", "celery.worker.strategy")
_OF_MESSAGES = "celery.worker.consumer.consumer"
# Texts of Celery's that print what came.
_NOT_UNDERSTOOD = {
    consumer.UNKNOWN_FORMAT: "unknown format",
    consumer.UNKNOWN_TASK_ERROR: "unknown task",
    consumer.INVALID_TASK_ERROR: "invalid task",
    consumer.MESSAGE_DECODE_ERROR: "not decodable",
}


def set_up() -> None:
    """Have Celery's lines pass through here."""
    for name in _OF_TASKS:
        logging.getLogger(name).addFilter(_tell_task)
    logging.getLogger(_OF_MESSAGES).addFilter(_tell_message)


def _tell_task(record: logging.LogRecord) -> bool:
    """``data`` holds what Celery knows of the task, its arguments as well."""
    data = vars(record).pop("data", None)
    if isinstance(data, dict):
        record.task, record.task_id = data.get("name"), data.get("id")
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(record.args, dict) and "exc" in record.args and error is not None:
        record.args = {**record.args, "exc": describe_error(error)}
    return True


def _tell_message(record: logging.LogRecord) -> bool:
    why = _NOT_UNDERSTOOD.get(record.msg)
    if why is not None:
        record.msg, record.args, record.why = "message_not_understood", (), why
        record.exc_info = None  # its text repeats the body
    return True
