"""The whole pipeline in one terminal, without Docker: what ``make run`` starts."""
