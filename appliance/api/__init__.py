"""The way in over HTTP: one controller per resource, each validating, calling one service,
presenting."""
