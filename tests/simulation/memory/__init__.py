"""A second implementation of ports.Store: dictionaries instead of SQL, the same decisions of tern.domain."""
