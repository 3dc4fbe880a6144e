"""The gate for continuous integration: tell whether training has got worse since the reference was accepted."""
