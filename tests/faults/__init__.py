"""The harness: servers and faults for tests. Nothing in the product imports it."""
