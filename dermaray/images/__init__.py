"""One image: its decoding to the pixels that a model takes, and what can be told from them."""
