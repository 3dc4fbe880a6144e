"""What an experiment is, before anything is trained.

A `design` is what is compared and how it is judged: factors, seeds, and hypotheses about `contrasts` of `responses`. A
`study` is a design with our protocol, a file that also names shared `settings`.
Its `plan` is every cell and run; `problems` are all mistakes of the file at once; `streams` are the random numbers.
"""
