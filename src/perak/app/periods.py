"""How often nodes show that they are alive, and what it means when they do not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """An operator's choice, in seconds; nearly all of it follows from the beat."""

    beat_seconds: float = 5.0
    lost_after_seconds: float = 300.0
    """A suspected node is shown as offline after the default disconnect_grace."""
    start_within_seconds: float = 7_200.0
    """A run that has not started by then is taken back: its environment and work folder take minutes, and
    twenty GB over a slow line an hour. The renter's money is held meanwhile."""
    report_within_seconds: float = 3_600.0
    """After max_duration, or a stop that was asked for, a node has this long to report the end: the agent
    ends a run within seconds, and then sends its log and its outputs."""
    certificate_seconds: float = 86_400.0
    """How long a node's certificate lives: short, because there is no revocation list."""

    batch_seconds: float = 3.0
    """Every so often deferrable jobs that bid are cleared together; 0: never, they are matched one by one."""
    batch_solve_seconds: float = 5.0
    """A clearing that takes longer is given up."""

    @property
    def suspect_after_seconds(self) -> float:
        """Three beats (design)."""
        return 3 * self.beat_seconds

    @property
    def hang_up_after_seconds(self) -> float:
        """Two beats were missed: the connection is dead. It is less than what makes a node suspected, so
        that a suspected node never has a session here that would not set it right."""
        return 2.4 * self.beat_seconds

    @property
    def absence_seconds(self) -> float:
        """The watch runs several times a beat; where it did not for a whole one, the exchange was away."""
        return self.beat_seconds

    @property
    def renew_before_seconds(self) -> float:
        """A node in session gets a fresh certificate when half of the old one's life is over."""
        return self.certificate_seconds / 2

    @property
    def watch_seconds(self) -> float:
        """How often the watch looks: every second, or more often where beats are quick."""
        return min(1.0, self.beat_seconds / 4)
