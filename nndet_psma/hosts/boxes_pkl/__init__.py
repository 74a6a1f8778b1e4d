"""nnDetection's box files, read and written without running anything in them."""
