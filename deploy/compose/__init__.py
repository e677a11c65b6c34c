"""Prepares the volumes of docker-compose.yml: passwords, certificates, and the settings of the demo."""
