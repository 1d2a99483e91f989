"""PostgreSQL: the only place where SQL lives."""
