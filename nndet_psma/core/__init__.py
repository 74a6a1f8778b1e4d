"""What knows nothing of images: files, errors, hashes, locks, logs, registries, schemas, workers."""
