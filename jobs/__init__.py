"""What a person starts: one module per job."""
