# SPDX-License-Identifier: Apache-2.0
"""Run tests on another kernel: ``python tests/vm 6.1`` (see ``lane/run.py``)."""

from __future__ import annotations

import sys

from lane.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
