"""Data that a job names: fetched, verified, kept on the node by content, and mounted read-only."""
