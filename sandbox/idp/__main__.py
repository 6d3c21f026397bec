"""`python -m sandbox.idp`."""

import sys

from sandbox.idp.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
