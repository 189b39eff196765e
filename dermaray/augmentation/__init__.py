"""Augmentor's recipes: what an operation is, what it does to an image, and the engines that run them."""
