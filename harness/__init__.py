"""Runs entries to their track's target and owns the clock, the data, the evaluation, the statistics and the cost."""
