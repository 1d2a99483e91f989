"""What Perak knows by itself: small tables of facts, each with its source and date.

Only data, no functions: `perak.domain.carbon` and `perak.domain.hardware` read them. A row that has aged is
replaced, never adjusted; tests compare the tables with their sources where those are at hand.
"""
