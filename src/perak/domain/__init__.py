"""Pure rules of the exchange: values in, values out; no I/O, clock, randomness or async."""
