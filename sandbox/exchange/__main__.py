"""`python -m sandbox.exchange`."""

import sys

from sandbox.exchange.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
