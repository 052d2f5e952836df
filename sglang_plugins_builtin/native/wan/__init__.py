"""Wan 2.1 and 2.2: clips from text, and from a first (and last) frame. Importing this imports no torch."""
