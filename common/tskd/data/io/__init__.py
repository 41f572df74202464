"""Readers and writers of single files: NIfTI, DICOM series, images, slices; and the scaling of intensities."""
