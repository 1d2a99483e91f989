"""Use cases: one function, one transaction. Effects are returned as data and carried out after the commit."""
