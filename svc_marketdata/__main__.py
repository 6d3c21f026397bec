"""`python -m svc_marketdata`."""

import sys

from svc_marketdata.main import main

if __name__ == "__main__":
    sys.exit(main())
