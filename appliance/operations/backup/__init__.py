"""Backups of a desk: one file, made while it serves, proven by restoring it.

``making`` writes one, ``rehearsal`` restores one into a temporary place and compares,
``restoring`` puts one in charge. ``contents`` says what belongs to a desk, ``archive`` what the
file looks like, and ``standing`` when all of this last went well.
"""
