"""What every service speaks: readings, topics, the MQTT connection, settings, logging and life cycle."""
