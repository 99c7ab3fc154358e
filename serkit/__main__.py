"""`python -m serkit`, which is the command `serkit`."""

import sys

from .command import main

sys.exit(main())
