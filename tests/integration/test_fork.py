"""A forked child shares nothing secret with its parent and works on connections of its own."""

import pytest

from byok.embedded.stack import Stack
from byok.wiring import Runtime
from tests.customers import add_key, join
from tests.scripts import run_script

SCRIPT = """
import os, sys
from byok import connect
from byok.wiring import runtime

vault = connect()
cipher = vault.cipher("acme", "pii")
token = cipher.encrypt(b"before", context=b"c")
desk = runtime._connected.services.desk
for _ in range(5):
    cipher.encrypt(b"x", context=b"c")  # on the fast path, with IVs in the pool
assert desk._held.leases and cipher._lane.sealing and desk.ivs._ivs
reader, writer = os.pipe()

def nonces():
    return [cipher.encrypt(b"x", context=b"c")[5:29] for _ in range(300)]

pid = os.fork()
if pid == 0:
    held, lane, ivs = len(desk._held.leases), cipher._lane.sealing, len(desk.ivs._ivs)
    opened = cipher.decrypt(token, context=b"c")
    os.write(writer, b"".join(nonces()))
    os._exit(0 if (held, lane, ivs, opened) == (0, None, 0, b"before") else 1)
assert os.waitpid(pid, 0)[1] == 0, "the child failed"
written = os.read(reader, 300 * 24)
childs = [written[at : at + 24] for at in range(0, len(written), 24)]
ours = nonces()
assert len({*childs, *ours}) == 600, "a nonce was used twice"
assert {one[:12] for one in childs}.isdisjoint(one[:12] for one in ours), "a salt was used by both"
assert {one[12:] for one in childs}.isdisjoint(one[12:] for one in ours), "an IV was used by both"
assert cipher.decrypt(token, context=b"c") == b"before"
assert cipher.decrypt(cipher.encrypt(b"after", context=b"c"), context=b"c") == b"after"
"""

EXPLICIT = """
import gc, os, sys
import sqlalchemy as sa
from byok import connect
from byok.settings import load_settings
from byok.store.postgres import create_engine

settings = load_settings()
engine = create_engine(settings.database_url.get_secret_value(), 1)

def members():
    with engine.connect() as connection:
        return sorted(connection.execute(sa.text("SELECT pid FROM members")).scalars())

vault = connect(settings)
cipher, desk = vault.cipher("acme", "pii"), vault._desk
token = cipher.encrypt(b"before", context=b"c")
assert desk._held.leases and members() == [os.getpid()]
if sys.argv[1] == "cipher":
    del vault
gc.collect()
pid = os.fork()
if pid == 0:
    engine.dispose(close=False)
    held, member = len(desk._held.leases), desk._watch.member
    opened = cipher.decrypt(token, context=b"c")
    joined = os.getpid() in members()
    os._exit(0 if (held, member, opened, joined) == (0, None, b"before", True) else 1)
assert os.waitpid(pid, 0)[1] == 0, "the child failed"
assert cipher.decrypt(token, context=b"c") == b"before"
if sys.argv[1] == "vault":
    vault.close()
    vault.close()
    assert not desk._held.leases and os.getpid() not in members()
"""

EARLY_HOOK = """
import os, sys
import byok

seen = []

def hook():
    if seen:
        seen.append(cipher.encrypt(b"in the hook", context=b"c")[5:29])

os.register_at_fork(after_in_child=hook)  # before there is any vault

cipher = byok.connect().cipher("acme", "pii")
seen.append(b"armed")
for _ in range(5):
    cipher.encrypt(b"x", context=b"c")
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(writer, seen[1])
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0, "the child failed"
theirs = os.read(reader, 24)
ours = {cipher.encrypt(b"x", context=b"c")[5:29] for _ in range(300)}
assert theirs not in ours and theirs[:12] not in {one[:12] for one in ours}
"""

CLOSED = """
from byok import connect

first = connect()
assert connect() is first
first.cipher("acme", "pii").encrypt(b"x", context=b"c")
first.close()
second = connect()
assert second is not first
second.cipher("acme", "pii").encrypt(b"x", context=b"c")
"""


@pytest.mark.parametrize("left", ["vault", "cipher"])
def test_a_vault_of_settings_of_its_own_forks_and_closes_too(
    stack: Stack, runtime: Runtime, left: str
) -> None:
    """Whether the vault is still there or only a cipher of it: a child has no lease and is no member."""
    join(stack, runtime, "acme")
    add_key(runtime, "acme")
    runtime.services.watch.close()
    run_script(stack, "-c", EXPLICIT, left, timeout_seconds=60)


def test_who_connects_after_the_shared_vault_was_closed_gets_another(stack: Stack, runtime: Runtime) -> None:
    join(stack, runtime, "acme")
    add_key(runtime, "acme")
    run_script(stack, "-c", CLOSED, timeout_seconds=60)


def test_parent_and_child_both_work_after_a_fork(stack: Stack, runtime: Runtime) -> None:
    join(stack, runtime, "acme")
    add_key(runtime, "acme")
    run_script(stack, "-c", SCRIPT, timeout_seconds=60)


def test_a_hook_that_encrypts_in_the_child_has_no_nonce_of_the_parent(stack: Stack, runtime: Runtime) -> None:
    join(stack, runtime, "acme")
    add_key(runtime, "acme")
    run_script(stack, "-c", EARLY_HOOK, timeout_seconds=60)
