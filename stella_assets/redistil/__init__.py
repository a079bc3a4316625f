"""Doing it all again by itself: what is new is embedded, the student trains on, and what passes the gate is served."""
