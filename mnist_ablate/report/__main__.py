"""``python -m mnist_ablate.report``: write the report of a results folder."""

import sys

from mnist_ablate.report import main

if __name__ == "__main__":
    sys.exit(main())
