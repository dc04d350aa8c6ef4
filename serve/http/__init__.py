"""What surrounds a request: access control, rate limits, errors, bodies, the access log."""
