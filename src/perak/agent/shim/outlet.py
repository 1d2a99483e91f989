"""A run's way to its proxy: a socket inside the run's network, held by the agent."""

from __future__ import annotations

import fcntl
import os
import socket

from perak.agent.shim import kernel

OUTLET_BACKLOG = 128  # connections that wait while the agent is away
PROBLEM_BYTES = 400  # of what the process inside says went wrong


class Outlet:
    """Where the job finds its proxy: a listening socket on the run's own loopback, handed to the agent.

    The agent may come and go: as long as none has it, connections wait in its backlog. Once this end of the
    connection to the agent closes, so does the run's way out.
    """

    def __init__(self, folder: str, run_id: str, port: int) -> None:
        # Through the open folder, because a socket's whole path may not exceed 107 bytes.
        self.address = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_CLOEXEC)}/outlets.sock"
        self.run_id = run_id.encode()
        self.port = port
        self.listener: int | None = None
        self.agent: socket.socket | None = None

    def open(self, pid: int) -> str | None:
        """Listen in the network of process `pid`, and tell the agent; what went wrong, or None."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()  # to enter a user namespace has no way back
        if child == 0:
            try:
                listener = _listen_inside(pid, self.port)
                socket.send_fds(theirs, [b"ok"], [listener.fileno()])
            except BaseException as error:
                theirs.send(str(error).encode()[:PROBLEM_BYTES])
            finally:
                os._exit(0)
        theirs.close()
        with ours:
            said, descriptors, _, _ = socket.recv_fds(ours, PROBLEM_BYTES, 1)
        os.waitpid(child, 0)
        if not descriptors:
            return said.decode(errors="replace") or "no socket came"
        self.listener = descriptors[0]
        self.hand_over()
        return None

    def hand_over(self) -> None:
        """See to it that the agent has the socket, also one that was started anew."""
        if self.listener is None or self._is_held():
            return
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            agent.connect(self.address)
            socket.send_fds(agent, [self.run_id], [self.listener])
        except OSError:  # no agent now; the next tick tries again
            agent.close()
        else:
            self.agent = agent

    def _is_held(self) -> bool:
        """Whether the agent that has it is still there: it never says a word, it only hangs up."""
        if self.agent is None:
            return False
        try:
            self.agent.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            pass
        self.agent.close()
        self.agent = None
        return False

    def close(self) -> None:
        """The stage is over: nothing of it reaches the network any more."""
        if self.agent is not None:
            self.agent.close()
            self.agent = None
        if self.listener is not None:
            os.close(self.listener)
            self.listener = None


def _listen_inside(pid: int, port: int) -> socket.socket:
    """A socket that listens in the network namespace of `pid`, which has a loopback and nothing else.

    On all of its addresses, because the loopback may not have its own yet.
    """
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if os.geteuid() != 0:
        kernel.enter(fcntl.ioctl(network, kernel.NS_GET_USERNS), kernel.NEW_USER)
    kernel.enter(network, kernel.NEW_NETWORK)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("0.0.0.0", port))  # noqa: S104
    listener.listen(OUTLET_BACKLOG)
    return listener
