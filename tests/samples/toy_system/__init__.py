"""A third party's package: its systems come in by entry points, and nothing else knows them."""
