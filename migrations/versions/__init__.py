"""Tern's own schema, one step after the other."""
