"""The command line of a module in a Python process of its own."""

from __future__ import annotations

import sys

# `-P`: a folder `service` or `models` in the working directory, which may be anyone's, is not taken for this program's.
RUN_MODULE = (sys.executable, "-P", "-m")
