"""The remote API: a process of its own that stores what it is told, and can be made to fail."""
