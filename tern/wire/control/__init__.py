"""Tern's own door over gRPC: ControlService, and the public contract for Tern's own applies.

Nothing is decided here. tokens.py says who calls, service.py and facade.py translate calls into what tern/doors
offers and back, status.py makes errors of every kind into the one shape, server.py listens; client.py is the other end.
"""
