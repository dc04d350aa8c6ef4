"""What users of the service reported: true labels with their images."""
