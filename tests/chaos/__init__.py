"""What happens when things break: processes killed, disks full or failing, clocks moved.

Real processes, real disks, real kills; :mod:`.ledger` compares what customers were told with what
is stored afterwards.
"""
