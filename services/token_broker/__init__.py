"""Holds the Enphase account: fetches tokens, caches them on disk and publishes them to the poller."""
