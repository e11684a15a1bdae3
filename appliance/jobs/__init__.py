"""What happens later: webhooks on their way, and what a worker does at its hours.

The outbox in the database is the truth. The queue carries hints that there is something in it;
losing the whole queue costs seconds, never an event.
"""
