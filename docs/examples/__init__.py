"""Examples that the guides use."""
