"""What is known of hardware by its name: specifications, and what clouds charge for the like."""
