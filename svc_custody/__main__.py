"""`python -m svc_custody`."""

import sys

from svc_custody.main import main

if __name__ == "__main__":
    sys.exit(main())
