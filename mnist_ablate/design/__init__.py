"""What an experiment is, before anything is trained.

A `study` is a file: it names factors, levels, seeds, shared `settings` and hypotheses about `contrasts` of `responses`.
Its `plan` is every cell and run; `problems` are all mistakes of the file at once; `streams` are the random numbers.
"""
