"""HTTP middleware and bodies: access control, rate limits, errors, parsing, access log."""
