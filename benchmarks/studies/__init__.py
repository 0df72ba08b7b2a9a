"""Studies of the project itself and of its methods."""
