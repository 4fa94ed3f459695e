"""Sinks: where the live loop's results go. To add one, follow the three steps in base.py."""
