"""A simulated Envoy and Enlighten log-in, for demos and tests."""
