"""A shop, and a CRM that it tells about its orders: the package at work on one machine."""
