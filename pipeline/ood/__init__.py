"""Out-of-distribution (OOD) detection: is a picture a digit at all."""
