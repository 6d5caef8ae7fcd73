"""PostgreSQL refuses to run as root: two ways around it."""

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

    As an ordinary user: as it is. As root: in a user namespace, where root's files stay root's and the
    process sees itself as nobody; where the kernel forbids that, as the user nobody.

    Raises:
        StackUnavailable: root, and neither way is open.
    """
    if os.geteuid() != 0:
        return RunAs()
    if sys.platform == "linux" and _works_in_child(_enter_user_namespace):
        return RunAs({"preexec_fn": _enter_user_namespace})
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StackUnavailable(
            "PostgreSQL does not run as root, and there is no user nobody",
            remedy="run byok as an ordinary user, or set BYOK_DATABASE_URL to a server of yours",
        ) from None
    return RunAs(
        {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}, (nobody.pw_uid, nobody.pw_gid)
    )


def _enter_user_namespace() -> None:
    """In a child: become uid 65534 of a new user namespace, which is root outside of it."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare exists from Python 3.12 on
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_NOBODY} 0 1")
    Path("/proc/self/gid_map").write_text(f"{_NOBODY} 0 1")


def _works_in_child(action: Callable[[], None]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
