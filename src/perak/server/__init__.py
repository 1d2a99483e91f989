"""The exchange: where its parts are put together, and its HTTP API."""
