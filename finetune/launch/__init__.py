"""How a run spreads over processes and machines."""
