"""``python -m mmucheck``."""

import sys

from mmucheck.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
