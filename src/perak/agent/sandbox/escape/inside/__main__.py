"""What the job runs, from a folder beside which nothing of ours is."""

from perak.agent.sandbox.escape.inside.attacks import main

if __name__ == "__main__":
    main()
