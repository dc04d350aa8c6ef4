"""Files, Git and DVC."""
