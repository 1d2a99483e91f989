"""The attacks that one look tells the outcome of, tried from inside the sandbox by an ordinary job.

Runs as ``python3 -I -S inside`` in the work folder, beside bait.json, which says what there is outside to be
found. For each attack one JSON line: ``{"check": name, "found": [what was open, ...]}``, or ``"not_run"`` and
why. System calls are made by their numbers, and each attack has a process of its own.

Standard library only, and nothing of ours from elsewhere: the Python is whatever lies in the sandbox, 3.9 or
later.
"""
