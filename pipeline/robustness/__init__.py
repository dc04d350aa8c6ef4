"""How models read disturbed images: corruptions, and the figures on them."""
