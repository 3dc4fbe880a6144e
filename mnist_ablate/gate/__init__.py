"""A gate for continuous integration: whether training has got worse since a reference was accepted.

`runs` trains what is needed and has the public function `gate`; `judge` decides, with the distances that `golden` and
`shifts` measure; `reference` is what is compared with, and `accept` makes a new one; `page` writes the verdict down.
"""
