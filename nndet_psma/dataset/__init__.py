"""Raw data: nnDetection's folders, images, checks, DICOM, phantoms."""
