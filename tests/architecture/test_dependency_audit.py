"""The audit of dependencies, by the real pip-audit, against an advisory service of ours."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_WEAK = {
    "id": "TEST-2026-1",
    "affected": [
        {
            "package": {"name": "celery", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}


@contextmanager
def advisory_service(weak: str | None) -> Iterator[str]:
    """A service that speaks OSV's protocol and knows one weakness, or none; its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer: dict[str, Any] = {"vulns": [_WEAK]} if asked["package"]["name"] == weak else {}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tell nobody."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def audit(url: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    arguments = ["-s", "osv", "--osv-url", url, "--cache-dir", str(tmp_path)]
    return subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "audit.py"), *arguments],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_weakness_fails_the_check_and_is_named(tmp_path: Path) -> None:
    with advisory_service("celery") as url:
        audited = audit(url, tmp_path)
    assert audited.returncode == 1
    assert "TEST-2026-1, fixed in ['99.0']" in audited.stdout
    assert audited.stdout.startswith("celery ")


def test_without_a_weakness_it_passes(tmp_path: Path) -> None:
    with advisory_service(None) as url:
        audited = audit(url, tmp_path, AUDIT_MUST_ANSWER="1")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert "NOT AUDITED" not in audited.stdout


def test_a_service_that_does_not_answer_is_said_and_may_be_taken_for_a_failure(tmp_path: Path) -> None:
    unreachable = "http://127.0.0.1:9"
    audited = audit(unreachable, tmp_path)
    assert (audited.returncode, "NOT AUDITED" in audited.stdout) == (0, True)
    assert audit(unreachable, tmp_path, AUDIT_MUST_ANSWER="1").returncode == 1
