"""What every block of a job file has in common."""

from pydantic import BaseModel, ConfigDict


class Block(BaseModel):
    # Built when the first job is checked: all but a few commands import this module and check none.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
