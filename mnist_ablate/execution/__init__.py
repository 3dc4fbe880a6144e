"""Hand out the runs of a study, take their results back and store them, on this machine or a cluster."""
