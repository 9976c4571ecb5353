"""Places that are not on a disk: object stores and web servers, as paths."""
