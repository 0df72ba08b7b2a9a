"""Devices: how work is spread over them, and what the machine is told."""
