"""Image files, read and written with their grid."""
