"""Decisions: what is made of a network's probabilities, fitted on validation images, with its guarantees."""
