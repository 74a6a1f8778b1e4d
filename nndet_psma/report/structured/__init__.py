"""Structured reports of measured nodes: JSON, HTML, DICOM SR."""
