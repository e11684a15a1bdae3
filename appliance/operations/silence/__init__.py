"""Proof of silence: attempts to reach out from inside each unit's sandbox, and what is connected.

``knocking`` runs inside and needs the standard library only, ``units`` brings it there, ``sockets``
reads what the kernel lists, ``report`` puts it all on a page.
"""
