"""What an experiment is: factors, cells, runs, contrasts, hypotheses, and what can be measured."""
