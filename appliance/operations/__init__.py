"""Running the appliance: its processes, their state, what an operator asks."""
