"""What the agent starts: the server, on the socket of that number."""

import sys

from perak.agent.shim.serve import serve

if __name__ == "__main__":
    serve(int(sys.argv[1]))
