"""The site that uses signal_dispatch: orders of customers."""
