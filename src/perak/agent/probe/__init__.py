"""What this machine is: its processor, memory, disk and devices."""
