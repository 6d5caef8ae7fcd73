"""The workers, with what each task asks PostgreSQL written to a folder; see `benchmarks.sql_recording`."""

import os
from pathlib import Path

from benchmarks.sql_recording import FOLDER_VARIABLE, record
from byok.settings import load_settings
from workers.app import make_app

app = make_app(load_settings())
record(Path(os.environ[FOLDER_VARIABLE]))  # noqa: TID251  # a module that Celery imports has no arguments
