"""Where it runs: Ray started or joined, resources checked, jobs submitted."""
