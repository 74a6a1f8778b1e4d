"""What stages hand to each other: typed, versioned JSON. One artefact per file."""
