"""Subscribes to the readings and writes them to Carbon, in batches, acknowledged once Carbon has read them."""
