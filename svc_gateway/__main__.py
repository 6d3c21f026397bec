"""`python -m svc_gateway`."""

import sys

from svc_gateway.main import main

if __name__ == "__main__":
    sys.exit(main())
