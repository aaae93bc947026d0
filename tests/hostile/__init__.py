"""Input that nobody should ever send: at every door, from every side."""
