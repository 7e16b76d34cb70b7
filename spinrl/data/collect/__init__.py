"""Rolling out behaviour policies, and putting tiers together from their episodes."""
