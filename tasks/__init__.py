"""Celery's half of Tern: task names, routes, bells, beat. Knows nothing of SQL or gRPC."""
