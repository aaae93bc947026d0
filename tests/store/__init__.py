"""The store on real PostgreSQL: its own guards, locks, races and query plans."""
