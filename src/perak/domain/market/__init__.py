"""Which offer fits which job, at what price: pure matching. It proposes; the applier re-checks."""
