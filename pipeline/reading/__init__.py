"""From the raw files of a data set to its splits."""
