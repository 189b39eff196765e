"""One image: its decoding to pixels and its augmentation."""
