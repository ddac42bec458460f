"""What operators' commands do to a running service."""
