"""What a run uses: the energy of its devices and of its share of the processor."""
