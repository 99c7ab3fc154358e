"""`python -m serkit`, which is the command `serkit`."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
