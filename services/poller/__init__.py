"""Reads the Envoy on the local network and publishes what it measures."""
