"""Under which user the server runs: its own when we are root, else the caller.

PostgreSQL refuses to run as root, rightly. As root we therefore drop to a uid that nothing else uses. It
needs no entry in /etc/passwd, so that nothing on the machine has to be changed, except that `initdb`
(not the server) insists on one for the uid it runs under. Where ours has none, `initdb` borrows the uid of
an existing account, with our gid, in a folder that only our gid can enter; the result is then handed over.
"""

import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

# Unused by Debian's static and dynamic ranges and by systemd's (its UIDS-GIDS.md, 60578-61183), and below
# 65536, so that it also exists in a container that maps the usual 65536 uids.
SERVER_UID = 60_700
BORROWED_ACCOUNT = "nobody"


class SpawnIdentity(TypedDict, total=False):
    """The keyword arguments of `subprocess.Popen` that set who a child is; empty keeps the caller."""

    user: int
    group: int
    extra_groups: Sequence[int]


@dataclass(frozen=True, slots=True)
class Account:
    """A user that PostgreSQL's programs run under; `dropped` says that it is not the caller."""

    uid: int
    gid: int
    dropped: bool

    @property
    def identity(self) -> SpawnIdentity:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.dropped else {}


def server_account() -> Account:
    """Return the account of the server: dedicated when we are root, else the caller's own."""
    if os.geteuid() == 0:
        return Account(SERVER_UID, SERVER_UID, dropped=True)
    return Account(os.geteuid(), os.getegid(), dropped=False)


def initdb_account(server: Account) -> Account:
    """Return an account that `initdb` accepts: the server's, or a borrowed uid with the server's gid."""
    if not server.dropped or _has_passwd_entry(server.uid):
        return server
    borrowed = (entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0)
    try:
        uid = pwd.getpwnam(BORROWED_ACCOUNT).pw_uid
    except KeyError:
        uid = next(borrowed, server.uid)
    return Account(uid, server.gid, dropped=True)


def _has_passwd_entry(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
