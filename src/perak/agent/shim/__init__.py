"""The small process that one run lives under: starts bubblewrap, keeps log and limits, says how it ended.

`__main__`, run as ``python -I -S FOLDER SOCKET``, is a server that waits, loaded, for the folders of runs and
forks a shim for each, in a session of its own; so a start costs a fork and not an interpreter. The server
ends with the agent, the shims do not. A shim reads launch.json (what to start; see
`perak.agent.sandbox.launch`) and writes shim.json, log and exit.json.

serve   the server                          log     the run's log file: its rate, its limit
life    a run from end to end, its loop     scrub   secrets, blotted out of the log
stage   bubblewrap for one script           outlet  the run's way to its proxy
limits  what the kernel doesn't hold        poke    tells the agent that there is news
ending  why it ended, exit.json             proc    what /proc says of processes

Standard library only, and nothing of ours from elsewhere: the interpreter that runs it has no other packages.
One thread only, because the sandbox's --die-with-parent follows the thread that started it.
"""
