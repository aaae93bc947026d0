"""The command line, by its commands."""
