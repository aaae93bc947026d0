"""What Tern does, one file per thing. A flow claims, calls, writes down what came of it, and rings the next bell."""
