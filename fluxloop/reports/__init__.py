"""How people look at results."""
