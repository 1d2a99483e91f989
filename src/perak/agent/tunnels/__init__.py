"""Tunnels: renters' terminals, ssh sessions and ports of their jobs, in a process of their own (`gate`).

The agent only hands on what the exchange asks for. The gate dials out, proves to be the node, and enters the
run's sandbox by `enter`; so neither the bytes nor a fault of a stranger's session touch the agent's own loop.
"""
