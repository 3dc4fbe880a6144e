"""All that is about the course notebook alone: the numbers it printed, and how they compare with ours."""
