"""What this box can do: the engine against its limit, whole queries against the usual pipeline."""
