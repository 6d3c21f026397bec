"""All faults: whatever the modules of `tests.chaos.faults` list as `FAULTS`, so that adding one is adding an entry or a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter

import tests.chaos.faults
from tests.chaos.fault import Fault


def catalogue() -> list[Fault]:
    """Return all faults by module and place in it; those of one stage stand together.

    Raises:
        ValueError: two share a name.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(tests.chaos.faults.__path__))
    found = [fault for name in names for fault in importlib.import_module(f"tests.chaos.faults.{name}").FAULTS]
    twice = [name for name, count in Counter(fault.name for fault in found).items() if count > 1]
    if twice:
        raise ValueError(f"faults share a name: {', '.join(twice)}")
    stages = list(dict.fromkeys(fault.stage for fault in found))
    return sorted(found, key=lambda fault: stages.index(fault.stage))
