"""Checks of stored results: damage, bits, and one folder against another."""
