"""A job's only way out: a proxy that knows what the job may reach, counts it, and closes with the run."""
