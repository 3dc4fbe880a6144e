"""The notebook's claims: which hypotheses decide on each, and what they say together."""
