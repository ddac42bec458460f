"""Logs and metrics, and what may not stand in them: secrets and phone numbers."""
