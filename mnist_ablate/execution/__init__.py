"""How the runs of a study are handed out, taken back and stored, here or on a cluster."""
