"""What stored runs say: effects, intervals, verdicts, power. Nothing here needs torch."""
