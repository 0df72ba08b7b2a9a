"""Configurations: data only, each with its command, hardware, time and result."""
