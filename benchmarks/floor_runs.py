"""Runs `benchmarks.rotation_floor` on copies of the database as it was before the recorded round."""

import json
import subprocess
import sys
from pathlib import Path

import psycopg
from psycopg import sql

from benchmarks.rotation_report import FloorRun
from benchmarks.rotation_usage import cpu_seconds
from benchmarks.rotation_world import RotationWorld
from byok.settings import child_environment

_BEFORE, _FLOOR = "byok_before", "byok_floor"


class Floors:
    """Runs the floor on copies of the database as it was before the recorded round."""

    def __init__(self, world: RotationWorld, recording: Path, threads: int) -> None:
        self._world = world
        self._recording = recording
        self._threads = threads
        base = world.database_url.rpartition("/")[0]
        self._admin_url = f"{base}/postgres"
        self._before_url, self._floor_url = f"{base}/{_BEFORE}", f"{base}/{_FLOOR}"

    def keep_database(self) -> None:
        """Copy the database as it is, all keys due; nobody may be connected to it."""
        self._world.disconnect()
        self._copy("byok", _BEFORE)
        with psycopg.connect(self._before_url, autocommit=True) as before:
            before.execute("UPDATE keys SET next_rotation_at = created_at")
            before.execute("VACUUM (FULL, ANALYZE) keys")

    def _copy(self, source: str, target: str) -> None:
        names = {"source": sql.Identifier(source), "target": sql.Identifier(target)}
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {target} WITH (FORCE)").format(**names))
            admin.execute(sql.SQL("CREATE DATABASE {target} TEMPLATE {source}").format(**names))
            admin.execute("CHECKPOINT")

    def run(self, rotations: int, trace: Path | None = None) -> FloorRun:
        self._copy(_BEFORE, _FLOOR)
        postgres = self._world.stack.postgres.child
        assert postgres is not None
        argv = [sys.executable, "-m", "benchmarks.rotation_floor", str(self._recording)]
        argv += ["--database", self._floor_url, "--kms", self._world.kms.url]
        argv += ["--threads", str(self._threads), "--rotations", str(rotations)]
        argv += [] if trace is None else ["--trace", str(trace)]
        before = cpu_seconds(postgres.process.pid)
        done = subprocess.run(argv, env=child_environment({}), stdout=subprocess.PIPE, check=True)
        used = cpu_seconds(postgres.process.pid) - before
        told = json.loads(done.stdout)
        return FloorRun(rotations, told["seconds"], told["cpu_seconds"], used)
