"""A pretend Envoy and Enlighten log-in, for trying things out and for tests."""
