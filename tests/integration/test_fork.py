"""A forked child shares nothing secret with its parent and works on connections of its own."""

import subprocess
import sys

from byok.embedded.stack import Stack
from byok.settings import child_environment
from byok.wiring import Runtime
from tests.customers import add_key, join

SCRIPT = """
import os, sys
from byok import connect, wiring

vault = connect()
cipher = vault.cipher("acme", "pii")
token = cipher.encrypt(b"before", context=b"c")
desk = wiring._connected.services.desk
assert desk._held.leases
pid = os.fork()
if pid == 0:
    held = len(desk._held.leases)
    opened = cipher.decrypt(token, context=b"c")
    nonces = {cipher.encrypt(b"x", context=b"c")[5:29] for _ in range(100)}
    os._exit(0 if (held, opened, len(nonces)) == (0, b"before", 100) else 1)
assert os.waitpid(pid, 0)[1] == 0, "the child failed"
assert cipher.decrypt(token, context=b"c") == b"before"
assert cipher.decrypt(cipher.encrypt(b"after", context=b"c"), context=b"c") == b"after"
"""


def test_parent_and_child_both_work_after_a_fork(stack: Stack, runtime: Runtime) -> None:
    join(stack, runtime, "acme")
    add_key(runtime, "acme")
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=child_environment(stack.environment),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
