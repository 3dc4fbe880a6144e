"""Train a run: from its specification to its numbers. This package needs torch."""
