"""Tern rolls one reviewed schema change out to many deployments."""
