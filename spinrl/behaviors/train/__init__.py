"""Training behaviour policies (DecQN): actors, learner, shared replay, and choosing what ships."""
