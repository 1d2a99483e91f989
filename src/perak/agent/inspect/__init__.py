"""The inspection of devices: over OpenCL in a child process that ends, and by the vendors' libraries."""
