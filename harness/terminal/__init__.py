"""What a person sees in the terminal while cells run."""
