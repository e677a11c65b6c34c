"""Owns every credential: fetches tokens from Enphase's log-in, keeps them and publishes them to the poller."""
