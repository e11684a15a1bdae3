"""How good the desk is: golden sets, metrics, report cards."""
