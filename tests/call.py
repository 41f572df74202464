"""`python -m tests.call` calls a test's function by its name: the other end of `tests.forked.run`."""

import json
import sys
from importlib import import_module

_call = json.loads(sys.argv[1])
sys.path = _call["path"]
getattr(import_module(_call["module"]), _call["function"])(*_call["arguments"])
