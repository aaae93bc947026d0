"""The PostgreSQL engine: executes one schema change online on one database, and keeps its books there.

service.py is the door for a caller in this process, server.py the one for gRPC. Everything that must survive
lives in the schema `_tern` of the target database (schema.py), so the process may be killed at any instant.
Nothing here knows of flows, stores or brokers.
"""
