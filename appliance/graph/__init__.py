"""The map: every node and edge of the seven agents."""
