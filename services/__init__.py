"""The services; each runs alone as ``python -m services.<name>`` and shares nothing with the others but MQTT."""
