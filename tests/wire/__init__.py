"""Tests of the wire, against a real gRPC server."""
