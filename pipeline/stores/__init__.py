"""The OME-Zarr that comes out: arrays, pyramids, metadata, provenance, publication."""
