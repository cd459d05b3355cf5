"""The experiment directory: its names, its lines and how they reach the disk."""
