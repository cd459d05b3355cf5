"""Recording the calls of a user's own service, to be replayed with new inputs."""
