"""What a node downloads from hosts that a renter names: bounded, verified, resumable, and never from the
provider's own network unless the provider says so."""
