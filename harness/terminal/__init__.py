"""Output on the terminal while cells run."""
