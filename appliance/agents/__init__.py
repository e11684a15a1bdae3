"""The seven agents. Each reads the state and returns what it adds; none knows another."""
