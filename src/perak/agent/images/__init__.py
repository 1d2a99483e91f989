"""Container images for jobs: pulled, verified, unpacked by an unprivileged process, and shared read-only."""
