"""DICOM: series, structure sets, diffusion, SUV."""
