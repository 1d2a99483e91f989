"""The process of the gate: ``python -m perak.agent.tunnels STATE_DIR URL LEVEL [LOG]``, orders on stdin."""

import asyncio
import sys
from pathlib import Path

from perak.agent.own_log import set_up_logging
from perak.agent.tunnels.gate import run

if __name__ == "__main__":
    set_up_logging(sys.argv[3], Path(sys.argv[4]) if sys.argv[4:] else None)
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2]))
