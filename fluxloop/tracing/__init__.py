"""What is seen inside a run: the decorators, the context they share, and capture."""
