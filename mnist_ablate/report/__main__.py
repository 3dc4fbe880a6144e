"""The command ``python -m mnist_ablate.report``."""

import sys

from mnist_ablate.report import main

sys.exit(main())
