"""``python -m indelible``: the command line without an installed script."""

import sys

from indelible.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
