"""Feedback of the service's users: true digits with their images."""
