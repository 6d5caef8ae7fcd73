"""PostgreSQL refuses to run as root, and as a user without a name: two ways around it."""

import ctypes
import os
import pwd
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byok.errors import StackUnavailable

_CLONE_NEWUSER = 0x10000000
_NOBODY = 65534


@dataclass(frozen=True)
class RunAs:
    """Extra arguments for `subprocess.Popen`, and the folder's new owner if it needs one."""

    arguments: dict[str, Any] = field(default_factory=dict)
    owner: tuple[int, int] | None = None


def run_as() -> RunAs:
    """How to start PostgreSQL from this process.

    As an ordinary user: as it is. As root, or as a user id without a name (containers have them): in a
    user namespace, where our files stay ours and the process sees itself as nobody. As root where the
    kernel forbids that: as the user nobody.

    Raises:
        StackUnavailable: no way is open.
    """
    user_id = os.geteuid()
    if user_id != 0 and _has_name(user_id):
        return RunAs()
    if sys.platform == "linux" and _works_in_child(_enter_user_namespace):
        return RunAs({"preexec_fn": _enter_user_namespace})
    if user_id == 0 and _has_name(_NOBODY):
        nobody = pwd.getpwuid(_NOBODY)
        return RunAs(
            {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []},
            (nobody.pw_uid, nobody.pw_gid),
        )
    raise StackUnavailable(
        f"PostgreSQL does not run as user id {user_id}",
        remedy="run byok as an ordinary user, or set BYOK_DATABASE_URL to a server of yours",
    )


def _has_name(user_id: int) -> bool:
    try:
        pwd.getpwuid(user_id)
    except KeyError:
        return False
    return True


def _enter_user_namespace() -> None:
    """In a child: become uid 65534 of a new user namespace, which is ourselves outside of it."""
    user_id, group_id = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare exists from Python 3.12 on
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_NOBODY} {user_id} 1")
    Path("/proc/self/gid_map").write_text(f"{_NOBODY} {group_id} 1")


def _works_in_child(action: Callable[[], None]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
