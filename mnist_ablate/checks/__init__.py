"""Questions about a study and its stored runs, answered without a report.

`plan` says what a study would run, `doctor` whether a results folder is sound, `verify` whether runs can be reproduced
bit for bit, `compare` whether two folders agree. Each returns a value that prints as the command of the same name does.
"""
