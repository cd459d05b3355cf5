"""A new project: files to start from, and the schemas its configurations are checked by."""
