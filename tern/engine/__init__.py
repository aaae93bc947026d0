"""The PostgreSQL engine: executes one schema change online on one database, and keeps its books there.

service.py is the door for a caller in this process, server.py the one for gRPC. Everything that must survive
lives in the schema `_tern` of the target database (schema.py), so the process may be killed at any instant.
Nothing here knows of flows, stores or brokers.

How a change comes about: scope.py says what a statement is about, judge.py finds its recipe by trying it on empty
copies (oracle.py), accept.py keeps the steps, runner.py carries them out, ending.py tidies up.

Names. The target of a statement is qualified in its syntax tree; whatever else it names without a namespace (types,
functions, other tables) is looked up in the declared namespace alone, by a search_path of exactly that, after
pg_catalog and before pg_temp. So no object of a third namespace is ever found by accident, and no expression has to
be rewritten by us.

Locks. The copies of the oracle are locked by their own creation, so the locks that ALTER TABLE takes on its table
come from a table of our own (recipes/split.py, scope.py); the oracle adds what it sees beyond that, and a test holds
the table against the server.

Rights. The engine's role is a member of the owners of the tables that it changes, and has CREATE in the database
(for `_tern`, and for the copies, which never outlive their transaction). Owners need CREATE in their namespaces, as
they would by hand. pg_read_all_stats lets it see how old a blocking transaction is. It needs no superuser, no
extension and no server setting, and must not come through a pooler that shares sessions.
"""
