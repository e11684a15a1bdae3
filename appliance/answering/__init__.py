"""Grounding: what may be said, in which words, and when to say nothing."""
