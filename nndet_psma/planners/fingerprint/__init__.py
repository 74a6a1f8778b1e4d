"""What is measured of a data set."""
