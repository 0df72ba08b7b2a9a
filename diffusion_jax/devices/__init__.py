"""Devices: sharding over a mesh, compiler options and cache, CPU cores as devices, glibc malloc."""
