"""Where the grid's figures come from: one module a source, each behind `perak.app.ports.GridFeed`."""
