"""Fuzz targets: every parser that a stranger's bytes reach. `make fuzz`; the unit tests replay the corpus."""
