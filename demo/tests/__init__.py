"""Unit tests of the pure parts: `python3 -m unittest discover -s demo`."""
