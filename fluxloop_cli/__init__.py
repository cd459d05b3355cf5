"""The `fluxloop` command: options onto the library, and nothing else."""
