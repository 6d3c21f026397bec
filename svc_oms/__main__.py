"""`python -m svc_oms`."""

import sys

from svc_oms.main import main

if __name__ == "__main__":
    sys.exit(main())
