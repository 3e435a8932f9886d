"""``python -m neuflow`` is the command ``neuflow``."""

import sys

from neuflow.cli import main

sys.exit(main())
