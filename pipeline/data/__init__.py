"""The data set in memory."""
