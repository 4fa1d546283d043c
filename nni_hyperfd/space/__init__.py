"""Search spaces and their configurations."""
