"""Training: the loop of one worker and the run of many."""
