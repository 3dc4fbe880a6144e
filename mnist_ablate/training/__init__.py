"""How a run is trained: from its specification to its numbers. This package needs torch."""
