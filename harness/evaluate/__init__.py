"""Scores final weights after the clock has stopped: the labels stay here, the model answers in a process of its own."""
