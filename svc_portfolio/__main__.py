"""`python -m svc_portfolio`."""

import sys

from svc_portfolio.main import main

if __name__ == "__main__":
    sys.exit(main())
