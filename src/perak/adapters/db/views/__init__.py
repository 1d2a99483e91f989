"""Reads for people and programs: SQL in, the models of `perak.wire.api` out. Nothing here writes."""
