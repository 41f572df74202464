"""`python -m tests.call` calls a pickled function: the other end of `tests.forked.run`."""

import base64
import pickle
import sys

sys.path, _call = pickle.loads(base64.b64decode(sys.argv[1]))
_target, _arguments = pickle.loads(_call)
_target(*_arguments)
