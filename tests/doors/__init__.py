"""Every way in to Tern, asked the same."""
