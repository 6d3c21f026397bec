"""See `mesh.local.control.main`."""

from __future__ import annotations

import sys

from mesh.local.control.main import main

sys.exit(main())
