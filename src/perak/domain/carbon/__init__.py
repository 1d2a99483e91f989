"""Energy and carbon of a run: models where nothing is measured, and yearly grid averages."""
