"""Releases beside one another, one of them in charge: which one, how its services are started and
stopped, and how another takes its place without anybody's data being at risk."""
