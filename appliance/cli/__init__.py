"""The ``appliance`` command: one file per group; what costs time is imported inside the
commands."""
