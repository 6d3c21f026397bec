"""`python -m svc_reporting`."""

import sys

from svc_reporting.main import main

if __name__ == "__main__":
    sys.exit(main())
