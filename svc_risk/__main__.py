"""`python -m svc_risk`."""

import sys

from svc_risk.main import main

if __name__ == "__main__":
    sys.exit(main())
