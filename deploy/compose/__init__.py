"""Prepares what the containers of docker-compose.yml share: passwords, certificates, the demo's settings."""
