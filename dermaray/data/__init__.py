"""Data sets: sources, the manifest, splits, archives and the streams made of them."""
