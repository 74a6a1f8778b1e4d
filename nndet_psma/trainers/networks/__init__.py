"""Parts of networks that several detectors share."""
