"""Subscribes to all readings and writes them to Carbon in batches."""
