"""What all services use: readings, topics, the MQTT connection, settings, logging and life cycle."""
