"""Runs that were made elsewhere: from a table, whatever wrote it, to the runs of a design.

A `source` reads a file or a folder, `propose` guesses what its columns are, a `design` with a section ``[table]``
settles it, and `runs` keeps the rules: what is paired, what failed, what is refused. Nothing in a table runs as code.
"""
