"""What a poll's responses mean: one module for each kind of reading; ``quirks.py`` has the rules for wrong values."""
