"""``python -m mnist_ablate``."""

import sys

from mnist_ablate.cli import main

sys.exit(main())
