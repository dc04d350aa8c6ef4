"""Folders and archives of pictures."""
