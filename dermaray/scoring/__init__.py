"""Bulk scoring: an input cut into shards, and a folder of results that knows which of them are done."""
