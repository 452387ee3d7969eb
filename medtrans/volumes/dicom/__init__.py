"""DICOM series in and out.

Reading goes from ``series`` (which series a folder holds) over ``frames`` (the attributes that
place, scale and tell apart an image), ``strays`` (what is no slice of the volume) and ``stack``
(slices in order, evenly spaced) to ``read`` (the voxels); ``archive`` unpacks a zipped study, and
``scan`` finds the series of a whole tree by headers alone. ``write`` makes a derived series. All
stand on ``dataset``, the only home of pydicom, and on ``codestream``, the sizes that compressed
pixels declare.
"""
