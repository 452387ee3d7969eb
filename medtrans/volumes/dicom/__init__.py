"""DICOM series in and out; `dataset` is the only home of pydicom."""
