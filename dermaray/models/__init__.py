"""Models: their graphs, what is saved of them, and the one way from bytes to a prediction."""
