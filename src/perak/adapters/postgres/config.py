"""The server's configuration, written anew at each start.

Sized for the smallest machine that we support (2 cores, 2 GiB): the whole server idles in some 30 MiB. What
differs from PostgreSQL's defaults says why. `ALTER SYSTEM` still works and wins over this file.
"""

import os
import pwd
import sys
from pathlib import Path

from perak.adapters.postgres.layout import SOCKET_PORT, Layout

ROLE = "perak"
SUPERUSER = "postgres"
DATABASE = "perak"
MAX_CONNECTIONS = 60  # Two exchanges' pools of 20, and room for a person with psql.
LOG_FILE_LIMIT = "10MB"

_SETTINGS = f"""\
# Reached through a socket in a folder of its own, never over the network.
listen_addresses = ''
port = {SOCKET_PORT}
unix_socket_permissions = 0600
password_encryption = 'scram-sha-256'
max_connections = {MAX_CONNECTIONS}

# A settled job must survive a power cut. These are the defaults; they stand here so that nobody wonders.
fsync = on
synchronous_commit = on
full_page_writes = on

# The working set is some ten MB of live jobs; the rest is left to the system's page cache.
shared_buffers = 64MB
maintenance_work_mem = 32MB
effective_cache_size = 512MB
# It is in memory, where a row is as near by the index as beside the last one. At the default, which is for
# disks that turn, eight rows are looked for in the whole of a table of a thousand.
random_page_cost = 1.1
min_wal_size = 64MB
max_wal_size = 512MB
checkpoint_timeout = 15min

# Nothing replicates the embedded server, so its log need not be fit for that.
wal_level = minimal
max_wal_senders = 0
max_logical_replication_workers = 0

# Our statements are short: compiling them, or spreading one over processes, costs more than it saves.
jit = off
max_parallel_workers_per_gather = 0
io_method = sync
autovacuum_max_workers = 2
# Queue tables turn over quickly.
autovacuum_naptime = 20s

timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_filename = 'postgresql-%Y%m%d-%H%M%S.log'
log_rotation_size = {LOG_FILE_LIMIT}
log_rotation_age = 7d
log_line_prefix = '%m [%p] '
log_checkpoints = off
# A failed statement is logged without its values, which may be secret.
log_parameter_max_length_on_error = 0
"""

# First match wins, and what matches no line is refused. Perak itself comes with a password; the superuser
# is for making the role at first start, and for a person: it takes the system user who owns the state folder.
_HBA = f"""\
local all {ROLE} scram-sha-256
local all {SUPERUSER} peer map=owner
"""


# After a crash every file is brought to the disk first: by one call instead of a thousand opens, which took
# up to half a second, and seconds on a busy disk. Linux alone has it, and tells of failures since 5.8.
_LINUX_SETTINGS = "recovery_init_sync_method = syncfs"


def write_config(layout: Layout) -> None:
    """Write the files; the server's user may read them and nobody but us may change them."""
    places = {
        "data_directory": layout.data,
        "hba_file": layout.hba,
        "ident_file": layout.ident,
        "unix_socket_directories": layout.socket_dir,
        "log_directory": layout.log,
    }
    settings = _SETTINGS + (f"{_LINUX_SETTINGS}\n" if sys.platform.startswith("linux") else "")
    lines = [f"{name} = '{_quoted(str(path))}'" for name, path in places.items()]
    header = "# Written by perak at each start; use ALTER SYSTEM for settings of your own."
    _write(layout.config, "\n".join([header, *lines, "", settings]))
    _write(layout.hba, _HBA)
    owner = pwd.getpwuid(os.geteuid()).pw_name
    _write(layout.ident, f'owner "{owner}" {SUPERUSER}\n')


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)  # Whatever the caller's umask is; the folder decides who gets here.


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
