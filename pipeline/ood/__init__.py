"""Out-of-distribution detection: is a picture a digit at all."""
