"""Devices: sharding over a mesh, compiler options, CPU cores as devices, glibc settings."""
